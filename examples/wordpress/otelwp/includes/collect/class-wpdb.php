<?php
/**
 * A wpdb that measures queries.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;

defined( 'ABSPATH' ) || exit;

/**
 * WordPress's wpdb, which also measures the time of each query and finds its caller.
 *
 * WordPress can do that itself, if the constant SAVEQUERIES is true. But other plugins read the constant and change what
 * they do, and wpdb then builds a text of the whole stack for each query, with all arguments: 20 µs and more.
 */
final class Wpdb extends \wpdb {

	/**
	 * The collector that counts queries.
	 *
	 * @var Database
	 */
	private static $database;

	/**
	 * Number of measured queries.
	 *
	 * @var int
	 */
	private static $measured = 0;

	/**
	 * Total duration of the measured queries in nanoseconds.
	 *
	 * @var int
	 */
	private static $total = 0;

	/**
	 * Replace WordPress's wpdb object by one of this class during this request.
	 *
	 * Not if a drop-in has set another class, and not if other code holds the object: two objects would differ as soon
	 * as one of them switches to another site of a network. Other references are detected with a weak reference to the
	 * old object.
	 *
	 * @param Database $database The collector that counts queries.
	 * @return bool Whether it was replaced.
	 */
	public static function install( Database $database ) {
		global $wpdb;
		if ( ! is_object( $wpdb ) || 'wpdb' !== get_class( $wpdb ) ) {
			return false;
		}
		// After preparing a statement, wpdb is referenced by a filter of its own.
		$filter  = array( $wpdb, 'remove_placeholder_escape' );
		$escapes = PHP_VERSION_ID >= 80100 && 0 === has_filter( 'query', $filter ); // Before PHP 8.1, a subclass escaped in its own way.
		$escapes && remove_filter( 'query', $filter, 0 );
		unset( $filter );

		$kept    = \WeakReference::create( $wpdb );
		$quicker = ( new \ReflectionClass( self::class ) )->newInstanceWithoutConstructor(); // It is already connected.
		$copy    = \Closure::bind(
			static function ( $from, $to ) {
				foreach ( get_object_vars( $from ) as $name => $value ) {
					$to->$name = $value;
				}
			},
			null,
			\wpdb::class // Includes private properties.
		);
		$copy( $wpdb, $quicker );
		$wpdb = $quicker; // phpcs:ignore WordPress.WP.GlobalVariablesOverride.Prohibited -- replaced by an equal object.
		$old  = $kept->get();
		if ( null !== $old ) {
			$wpdb = $old; // phpcs:ignore WordPress.WP.GlobalVariablesOverride.Prohibited
		}
		$escapes && add_filter( 'query', array( $wpdb, 'remove_placeholder_escape' ), 0 );
		self::$database = $database;
		return null === $old;
	}

	/**
	 * Run a query and measure it, including the time for reading its rows.
	 *
	 * @param string $query The statement.
	 * @return int|bool What wpdb::query() returns.
	 */
	public function query( $query ) {
		$ran      = $this->num_queries;
		$measured = self::$measured;
		$total    = self::$total;
		$start    = microtime( true );
		$began    = hrtime( true );
		try {
			return parent::query( $query );
		} finally {
			$took = hrtime( true ) - $began - ( self::$total - $total ); // Without the queries of filters and of wpdb itself.
			// If wpdb or a filter refused the statement, no query ran.
			if ( $this->num_queries - $ran > self::$measured - $measured ) {
				++self::$measured;
				self::$total += $took;
				// phpcs:ignore WordPress.PHP.DevelopmentFunctions.error_log_debug_backtrace -- without arguments and objects.
				$frames = debug_backtrace( DEBUG_BACKTRACE_IGNORE_ARGS );
				self::$database->ran( (string) $this->last_query, $took / 1e9, self::caller( $frames ), $start, (string) $this->last_error, Owner::of_frames( $frames ) );
			}
		}
	}

	/**
	 * Return the caller of the current query.
	 *
	 * @param array[] $frames From debug_backtrace().
	 * @return string
	 */
	private static function caller( array $frames ) {
		foreach ( $frames as $number => $frame ) {
			if ( ! isset( $frame['class'] ) ) {
				// Code outside of functions: the inner frame contains the file.
				$is_file = in_array( $frame['function'], array( 'include', 'include_once', 'require', 'require_once' ), true );
				return $is_file && isset( $frames[ $number - 1 ]['file'] ) ? $frame['function'] . "('" . Redact::path( $frames[ $number - 1 ]['file'] ) . "')" : $frame['function'];
			}
			if ( 'wpdb' !== $frame['class'] && self::class !== $frame['class'] ) {
				return $frame['class'] . $frame['type'] . $frame['function'];
			}
		}
		return '';
	}
}
