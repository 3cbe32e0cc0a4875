<?php
/**
 * The circuit breaker.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Remembers which endpoints failed, so that a dead agent costs one attempt a minute and not one a page.
 *
 * It remembers in APCu, which all workers of a pool share, or else in a transient without an expiry: WordPress loads
 * that one with all other options (or has it in the object cache), so that reading it asks the database nothing.
 */
final class Breaker {

	const NAME = 'otelwp_breaker';

	const SECONDS = 60;

	/**
	 * Endpoint => until when it is left alone, since when it fails, why.
	 *
	 * @var array<string, array{until: int, since: int, why: string}>
	 */
	private $failing;

	/**
	 * Read what is remembered.
	 */
	public function __construct() {
		$failing       = self::has_apcu() ? apcu_fetch( self::key( self::NAME ) ) : get_transient( self::NAME );
		$this->failing = is_array( $failing ) ? $failing : array();
		if ( false === $failing && ! self::has_apcu() && ! wp_using_ext_object_cache() ) {
			$this->save(); // Somebody deleted it: without the row, every page would ask for it.
		}
	}

	/**
	 * Create the transient's row.
	 */
	public static function prepare() {
		if ( false === get_transient( self::NAME ) ) {
			set_transient( self::NAME, array() );
		}
	}

	/**
	 * Tell whether processes share memory.
	 *
	 * @return bool
	 */
	public static function has_apcu() {
		static $has = null;
		if ( null === $has ) {
			$has = function_exists( 'apcu_enabled' ) && apcu_enabled();
		}
		return $has;
	}

	/**
	 * Return a key of shared memory that no other site on this host uses.
	 *
	 * @param string $name What it is for.
	 * @return string
	 */
	public static function key( $name ) {
		global $table_prefix;
		return 'otelwp:' . ABSPATH . ':' . $table_prefix . ':' . $name;
	}

	/**
	 * Tell whether an endpoint may be tried. Who is told yes while it fails tries alone: the others wait another minute.
	 *
	 * @param string $endpoint Its text.
	 * @return bool
	 */
	public function allows( $endpoint ) {
		if ( ! isset( $this->failing[ $endpoint ] ) ) {
			return true;
		}
		if ( $this->failing[ $endpoint ]['until'] > time() ) {
			return false;
		}
		$this->failing[ $endpoint ]['until'] = time() + self::SECONDS;
		$this->save();
		return true;
	}

	/**
	 * Note how a try ended.
	 *
	 * @param string $endpoint Its text.
	 * @param string $why      '' if it went well.
	 */
	public function note( $endpoint, $why ) {
		$known = isset( $this->failing[ $endpoint ] );
		if ( '' === $why ) {
			if ( $known ) {
				unset( $this->failing[ $endpoint ] );
				$this->save();
			}
			return;
		}
		if ( $known && $this->failing[ $endpoint ]['until'] > time() && $this->failing[ $endpoint ]['why'] === $why ) {
			return; // allows() has prolonged it.
		}
		$this->failing[ $endpoint ] = array(
			'until' => time() + self::SECONDS,
			'since' => $known ? $this->failing[ $endpoint ]['since'] : time(),
			'why'   => $why,
		);
		$this->save();
	}

	/**
	 * Return the endpoints that fail.
	 *
	 * @return array
	 */
	public function failing() {
		return $this->failing;
	}

	/**
	 * Forget all failures.
	 */
	public function reset() {
		$this->failing = array();
		$this->save();
	}

	/**
	 * Remember.
	 */
	private function save() {
		if ( self::has_apcu() ) {
			apcu_store( self::key( self::NAME ), $this->failing );
		} else {
			set_transient( self::NAME, $this->failing );
		}
	}
}
