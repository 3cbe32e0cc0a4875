<?php
/**
 * Sends one message.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Tries the endpoints in order until one accepts the message. If none does, the message is lost, and counted if there
 * is APCu.
 */
final class Sender {

	/**
	 * The endpoints, in the order of preference.
	 *
	 * @var string[]
	 */
	private $endpoints;

	/**
	 * The endpoints that failed recently.
	 *
	 * @var Breaker
	 */
	private $breaker;

	/**
	 * Why the endpoints before the successful one refused the last message.
	 *
	 * @var array<string, string>
	 */
	public $problems = array();

	/**
	 * Prepare to send.
	 *
	 * @param string[] $endpoints From the settings.
	 * @param Breaker  $breaker   The endpoints that failed recently.
	 */
	public function __construct( array $endpoints, Breaker $breaker ) {
		$this->endpoints = $endpoints;
		$this->breaker   = $breaker;
	}

	/**
	 * Send a message.
	 *
	 * @param string $body The OTLP.
	 * @return string The endpoint that accepted it; '' if none did.
	 */
	public function send( $body ) {
		$this->problems = array();
		foreach ( $this->endpoints as $text ) {
			$endpoint = Endpoint::parse( $text, Settings::is_constant( 'endpoints' ) );
			if ( null === $endpoint || ! $endpoint->exists() ) {
				$this->problems[ $text ] = 'the socket does not exist';
				continue;
			}
			if ( ! $this->breaker->allows( $text ) ) {
				$this->problems[ $text ] = 'skipped, because it failed less than a minute ago';
				continue;
			}
			$why = $endpoint->deliver( $body );
			if ( Endpoint::TOO_LARGE !== $why && Endpoint::BUSY !== $why ) {
				$this->breaker->note( $text, $why );
			}
			if ( '' === $why ) {
				self::count( 'sent' );
				return $text;
			}
			$this->problems[ $text ] = $why;
		}
		self::count( 'lost' );
		return '';
	}

	/**
	 * Remember the last trace that an endpoint accepted, for the settings page; only with APCu.
	 *
	 * @param string $endpoint Which accepted it.
	 * @param int    $spans    Number of its spans.
	 */
	public static function remember( $endpoint, $spans ) {
		if ( Breaker::has_apcu() ) {
			apcu_store( Breaker::key( 'last' ), array( time(), $spans, $endpoint ) );
		}
	}

	/**
	 * Return the last trace that an endpoint accepted since PHP started; null if it is unknown.
	 *
	 * @return array{at: int, spans: int, endpoint: string}|null
	 */
	public static function last() {
		$last = Breaker::has_apcu() ? apcu_fetch( Breaker::key( 'last' ) ) : false;
		return is_array( $last ) ? array_combine( array( 'at', 'spans', 'endpoint' ), $last ) : null;
	}

	/**
	 * Return how many messages were sent and lost since PHP started; null without APCu.
	 *
	 * @return array{sent: int, lost: int}|null
	 */
	public static function counts() {
		if ( ! Breaker::has_apcu() ) {
			return null;
		}
		return array(
			'sent' => (int) apcu_fetch( Breaker::key( 'sent' ) ),
			'lost' => (int) apcu_fetch( Breaker::key( 'lost' ) ),
		);
	}

	/**
	 * Count a message.
	 *
	 * @param string $what `sent` or `lost`.
	 */
	private static function count( $what ) {
		if ( Breaker::has_apcu() ) {
			apcu_inc( Breaker::key( $what ) ); // A missing counter starts at 1.
		}
	}
}
