<?php
/**
 * A wpdb that tells quicker who asked.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;

defined( 'ABSPATH' ) || exit;

/**
 * WordPress's wpdb in all but one thing.
 *
 * With SAVEQUERIES, wpdb walks the whole stack for each query, with all arguments, to write down every function on it:
 * 20 µs and more, and two thirds of what a recorded page would pay. Spans name the nearest, which is a few frames away.
 */
final class Wpdb extends \wpdb {

	const FRAMES = 5; // Of which, between a query and who asked, wpdb has two to four.

	/**
	 * Who is told of each query.
	 *
	 * @var Database
	 */
	private static $database;

	/**
	 * Stand in for WordPress's own during this request.
	 *
	 * Not for a class that a drop-in brought, and not if somebody keeps the object: two would drift apart, as soon as
	 * one of them goes to another site of a network. That nobody does is seen by its end when we let go of it.
	 *
	 * @param Database $database Who is told of each query.
	 * @return bool Whether it does.
	 */
	public static function stand_in( Database $database ) {
		global $wpdb;
		if ( ! is_object( $wpdb ) || 'wpdb' !== get_class( $wpdb ) ) {
			return false;
		}
		// Once it has prepared a statement, wpdb is kept by a filter of its own.
		$filter  = array( $wpdb, 'remove_placeholder_escape' );
		$escapes = PHP_VERSION_ID >= 80100 && 0 === has_filter( 'query', $filter ); // Before, a child escaped in its own way.
		$escapes && remove_filter( 'query', $filter, 0 );
		unset( $filter );

		$kept    = \WeakReference::create( $wpdb );
		$quicker = ( new \ReflectionClass( self::class ) )->newInstanceWithoutConstructor(); // It is connected.
		$copy    = \Closure::bind(
			static function ( $from, $to ) {
				foreach ( get_object_vars( $from ) as $name => $value ) {
					$to->$name = $value;
				}
			},
			null,
			\wpdb::class // What is private there, too.
		);
		$copy( $wpdb, $quicker );
		$wpdb = $quicker; // phpcs:ignore WordPress.WP.GlobalVariablesOverride.Prohibited -- by an equal one.
		$old  = $kept->get();
		if ( null !== $old ) {
			$wpdb = $old; // phpcs:ignore WordPress.WP.GlobalVariablesOverride.Prohibited
		}
		$escapes && add_filter( 'query', array( $wpdb, 'remove_placeholder_escape' ), 0 );
		self::$database = $database;
		return null === $old;
	}

	/**
	 * Return who asked; called once for each query.
	 *
	 * @return string
	 */
	public function get_caller() {
		self::$database->ran();
		// phpcs:ignore WordPress.PHP.DevelopmentFunctions.error_log_debug_backtrace -- of a few frames, without arguments.
		$frames = debug_backtrace( DEBUG_BACKTRACE_IGNORE_ARGS, self::FRAMES );
		foreach ( $frames as $number => $frame ) {
			if ( ! isset( $frame['class'] ) ) {
				// Code of a file itself: the frame within it knows which.
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
