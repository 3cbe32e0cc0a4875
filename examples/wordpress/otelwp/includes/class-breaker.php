<?php
/**
 * The circuit breaker.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Remembers which endpoints failed, so that an unreachable agent costs one attempt a minute, not one for each page.
 *
 * The state is in APCu, which all workers of a pool share, or else in a transient without an expiry. WordPress loads
 * such a transient with all other options (or from the object cache), so that reading it needs no database query.
 */
final class Breaker {

	const NAME = 'otelwp_breaker';

	const SECONDS = 60;

	/**
	 * Endpoint => until when it is skipped, since when it fails, and why.
	 *
	 * @var array<string, array{until: int, since: int, why: string}>
	 */
	private $failing;

	/**
	 * Read the state.
	 */
	public function __construct() {
		$failing       = self::has_apcu() ? apcu_fetch( self::key( self::NAME ) ) : get_transient( self::NAME );
		$this->failing = is_array( $failing ) ? $failing : array();
		if ( false === $failing && ! self::has_apcu() && ! wp_using_ext_object_cache() ) {
			$this->save(); // The transient was deleted: without its row, every page would query the database for it.
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
	 * Return whether processes share memory.
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
	 * Return a key in shared memory that no other site on this host uses.
	 *
	 * @param string $name Its purpose.
	 * @return string
	 */
	public static function key( $name ) {
		global $table_prefix;
		return 'otelwp:' . ABSPATH . ':' . $table_prefix . ':' . $name;
	}

	/**
	 * Return whether an endpoint may be tried. While it fails, only one process gets true in a minute; all others must
	 * wait.
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
	 * Record the result of an attempt.
	 *
	 * @param string $endpoint Its text.
	 * @param string $why      The reason of the failure, '' after a success.
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
			return; // allows() has extended the time already.
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
	 * Delete all failures.
	 */
	public function reset() {
		$this->failing = array();
		$this->save();
	}

	/**
	 * Save the state.
	 */
	private function save() {
		if ( self::has_apcu() ) {
			apcu_store( self::key( self::NAME ), $this->failing );
		} else {
			set_transient( self::NAME, $this->failing );
		}
	}
}
