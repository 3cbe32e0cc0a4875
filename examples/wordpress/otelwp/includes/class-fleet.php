<?php
/**
 * This installation in the fleet of its merchant.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * What the collector knows about this installation, and what it has answered: in one option of the site, which pages
 * do not load.
 */
final class Fleet {

	const OPTION = 'otelwp_fleet';

	const MAX_NOTICES = 20;

	/**
	 * Return whether heartbeats identify this site to a merchant's fleet.
	 *
	 * @return bool
	 */
	public static function is_configured() {
		return '' !== (string) Settings::get( 'merchant_id' ) && '' !== Heartbeat::url();
	}

	/**
	 * Return the members of heartbeats and events that identify this installation.
	 *
	 * @return array<string, string>
	 */
	public static function identity() {
		$identity = array(
			'cms'         => class_exists( 'WooCommerce', false ) ? 'woocommerce' : 'wordpress',
			'environment' => wp_get_environment_type(),
		);
		if ( '' !== (string) Settings::get( 'merchant_id' ) ) {
			$identity += array(
				'merchant_id' => (string) Settings::get( 'merchant_id' ),
				'site_id'     => substr( Site::id(), 0, 128 ),
			);
		}
		return $identity;
	}

	/**
	 * Return what is saved about this installation.
	 *
	 * @return array
	 */
	public static function state() {
		$state = get_option( self::OPTION );
		$state = is_array( $state ) ? $state : array();
		if ( isset( $state['of'] ) && self::fingerprint() !== $state['of'] ) {
			$state = array(); // Another merchant, collector or site: the id of the installation is another one.
		}
		return $state + array(
			'of'           => self::fingerprint(),
			'installation' => '',
			'signed_at'    => 0, // Of the last valid toggles.
			'problem'      => '', // Why toggles are not obeyed.
			'next'         => 0, // When the next heartbeat is due.
			'notices'      => array(),
			'acknowledged' => array(), // Ids of notices, for the next heartbeat.
			'errors'       => array(), // Time of events in minutes => number of errors, of the last hour.
		);
	}

	/**
	 * Save it.
	 *
	 * @param array $state All of it.
	 */
	public static function save( array $state ) {
		update_option( self::OPTION, $state, false );
	}

	/**
	 * Save an answer to a heartbeat; return the toggles to obey.
	 *
	 * The id of the installation is that of the first valid toggles. An answer with another id is not obeyed, so toggles
	 * of another installation cannot be used here.
	 *
	 * @param array    $reply        The body, decoded.
	 * @param string[] $acknowledged Ids of notices that the heartbeat contained.
	 * @return array{on: string[], until: int}
	 */
	public static function learn( array $reply, array $acknowledged ) {
		$state        = self::state();
		$installation = isset( $reply['installation_id'] ) && is_string( $reply['installation_id'] ) ? substr( $reply['installation_id'], 0, 64 ) : '';
		$pinned       = $state['signed_at'] ? $state['installation'] : $installation;
		$found        = Toggles::verify( isset( $reply['signed_toggles'] ) ? $reply['signed_toggles'] : null, $pinned, (string) Settings::get( 'toggles_key' ), time(), $state['signed_at'] );
		if ( is_wp_error( $found ) ) {
			$asked            = isset( $reply['toggles'] ) && is_array( $reply['toggles'] ) && array_filter( $reply['toggles'] );
			$state['problem'] = $asked || isset( $reply['signed_toggles'] ) ? $found->get_error_message() : '';
			$found            = array(
				'on'    => array(),
				'until' => 0,
			);
		} else {
			$state['problem']   = '';
			$state['signed_at'] = $found['at'];
		}
		if ( ! $state['signed_at'] || '' === $state['installation'] ) {
			$state['installation'] = $installation;
		}
		$next                  = isset( $reply['next_heartbeat_seconds'] ) && is_numeric( $reply['next_heartbeat_seconds'] ) ? (int) $reply['next_heartbeat_seconds'] : 0;
		$state['next']         = $next > 0 ? time() + min( $next, DAY_IN_SECONDS ) : 0;
		$state['acknowledged'] = array_values( array_diff( $state['acknowledged'], $acknowledged ) );
		$state['notices']      = self::notices( isset( $reply['notifications'] ) ? $reply['notifications'] : null, $state['acknowledged'] );
		self::save( $state );
		return $found;
	}

	/**
	 * Record when the collector wants the next heartbeat after one that it refused.
	 *
	 * @param array $headers Of the answer.
	 */
	public static function postpone( array $headers ) {
		$wait  = isset( $headers['retry-after'] ) ? (int) $headers['retry-after'] : 0;
		$state = self::state();
		if ( $wait > 0 ) {
			$state['next'] = time() + min( $wait, DAY_IN_SECONDS );
			self::save( $state );
		}
	}

	/**
	 * Remove a notice that an administrator has seen, and report it with the next heartbeat.
	 *
	 * @param string $id Of the notice.
	 */
	public static function acknowledge( $id ) {
		$state = self::state();
		foreach ( $state['notices'] as $number => $notice ) {
			if ( $notice['id'] === $id ) {
				unset( $state['notices'][ $number ] );
				$state['notices']      = array_values( $state['notices'] );
				$state['acknowledged'] = array_slice( array_merge( $state['acknowledged'], array( $id ) ), -self::MAX_NOTICES );
				self::save( $state );
				return;
			}
		}
	}

	/**
	 * Return the valid notices of an answer.
	 *
	 * @param mixed    $answered     `notifications`.
	 * @param string[] $acknowledged Ids of those that an administrator has seen.
	 * @return array<array{id: string, version: string, priority: string, notes: string}>
	 */
	private static function notices( $answered, array $acknowledged ) {
		$notices = array();
		foreach ( array_slice( is_array( $answered ) ? $answered : array(), 0, self::MAX_NOTICES ) as $notice ) {
			$notice = array_filter( is_array( $notice ) ? $notice : array(), 'is_string' ) + array_fill_keys( array( 'id', 'latest_version', 'priority', 'notes' ), '' );
			if ( '' !== $notice['id'] && strlen( $notice['id'] ) <= 64 && ! in_array( $notice['id'], $acknowledged, true ) ) {
				$notices[] = array(
					'id'       => $notice['id'],
					'version'  => substr( sanitize_text_field( $notice['latest_version'] ), 0, 64 ),
					'priority' => sanitize_key( substr( $notice['priority'], 0, 16 ) ),
					'notes'    => mb_substr( sanitize_text_field( $notice['notes'] ), 0, 500 ),
				);
			}
		}
		return $notices;
	}

	/**
	 * Return a text that changes when the installation is another one.
	 *
	 * @return string
	 */
	private static function fingerprint() {
		return md5( implode( "\n", self::identity() ) . "\n" . Heartbeat::url() );
	}
}
