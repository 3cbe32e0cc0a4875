<?php
/**
 * What each plugin used.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Adds up by plugin and theme: the time for loading it and in hooks, database queries, outgoing requests, mails, errors.
 *
 * The span of the request gets a row for each, in the attribute `wordpress.plugin.usage`. What no plugin or theme caused
 * is in the row of WordPress itself.
 */
final class Usage {

	const MAX_ROWS = 15; // The others are added up in one row.

	const SLOWEST = array( 'slowest_ms', 'slowest_hook', 'slowest_function' ); // Of one call, not added up.

	/**
	 * The trace.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * The span of the request.
	 *
	 * @var int
	 */
	private $root;

	/**
	 * Kind and name, separated by a space => figures.
	 *
	 * @var array<string, array>
	 */
	private $rows = array();

	/**
	 * When the last plugin had been loaded, or WordPress began to load the first one: nanoseconds since 1970.
	 *
	 * @var int
	 */
	private $loaded;

	/**
	 * Register the hooks.
	 *
	 * @param Trace $trace The trace.
	 * @param int   $root  The span of the request.
	 */
	public function __construct( Trace $trace, $root ) {
		$this->trace  = $trace;
		$this->root   = $root;
		$this->loaded = $trace->now();
		foreach ( array( 'mu_plugin_loaded', 'network_plugin_loaded', 'plugin_loaded' ) as $hook ) {
			add_action( $hook, array( $this, 'plugin_loaded' ), PHP_INT_MAX );
		}
		// Between the must-use plugins and the others, WordPress does work of its own, which ends with this.
		if ( ! did_action( 'muplugins_loaded' ) ) {
			add_action( 'registered_post_type', array( $this, 'before_plugins' ), PHP_INT_MAX, 0 );
		}
	}

	/**
	 * Record the time for loading a plugin.
	 *
	 * @param string $file Its main file.
	 */
	public function plugin_loaded( $file ) {
		$now = $this->trace->now();
		$this->add( Owner::of_file( (string) $file ), 'load_ms', ( $now - $this->loaded ) / 1e6 );
		$this->loaded = $now;
		if ( did_action( 'muplugins_loaded' ) ) {
			remove_action( 'registered_post_type', array( $this, 'before_plugins' ), PHP_INT_MAX );
		}
	}

	/**
	 * Leave out the time since the last plugin.
	 */
	public function before_plugins() {
		$this->loaded = $this->trace->now();
	}

	/**
	 * Add to a figure.
	 *
	 * @param array     $owner  Attributes from Owner.
	 * @param string    $figure Its name.
	 * @param int|float $amount What is added.
	 */
	public function add( array $owner, $figure, $amount ) {
		$key = self::key( $owner );
		$this->rows[ $key ][ $figure ] = $amount + ( isset( $this->rows[ $key ][ $figure ] ) ? $this->rows[ $key ][ $figure ] : 0 );
	}

	/**
	 * Add a call of a function in a hook.
	 *
	 * @param array  $owner Attributes from Owner, with the function.
	 * @param string $hook  The hook.
	 * @param float  $ms    Self time in milliseconds.
	 */
	public function called( array $owner, $hook, $ms ) {
		$this->add( $owner, 'calls', 1 );
		$this->add( $owner, 'self_ms', $ms );
		$row = &$this->rows[ self::key( $owner ) ];
		if ( ! isset( $row['slowest_ms'] ) || $ms > $row['slowest_ms'] ) {
			$row['slowest_ms']       = $ms;
			$row['slowest_hook']     = $hook;
			$row['slowest_function'] = $owner['code.function.name'];
		}
	}

	/**
	 * Write the rows, those with the most time first.
	 */
	public function finish() {
		$times = array_map( array( self::class, 'time' ), $this->rows );
		arsort( $times );
		$rows   = array();
		$others = array();
		foreach ( array_keys( $times ) as $number => $key ) {
			list( $kind, $name ) = explode( ' ', $key, 2 );
			if ( $number < self::MAX_ROWS ) {
				$rows[] = self::row( $kind, $name, $this->rows[ $key ] );
				continue;
			}
			foreach ( array_diff_key( $this->rows[ $key ], array_flip( self::SLOWEST ) ) as $figure => $amount ) {
				$others[ $figure ] = $amount + ( isset( $others[ $figure ] ) ? $others[ $figure ] : 0 );
			}
		}
		if ( $others ) {
			$rows[] = self::row( 'other', '', $others );
		}
		if ( $rows ) {
			$this->trace->set( $this->root, array( 'wordpress.plugin.usage' => $rows ) );
		}
	}

	/**
	 * Return the time of a row, which orders the rows. The time in hooks includes queries and requests made there.
	 *
	 * @param array $figures By name.
	 * @return float Milliseconds.
	 */
	private static function time( array $figures ) {
		$figures += array_fill_keys( array( 'load_ms', 'self_ms', 'sql_ms', 'http_ms' ), 0 );
		return $figures['load_ms'] + max( $figures['self_ms'], $figures['sql_ms'] + $figures['http_ms'] );
	}

	/**
	 * Return the key of a row.
	 *
	 * @param array $owner Attributes from Owner.
	 * @return string
	 */
	private static function key( array $owner ) {
		if ( isset( $owner['wordpress.plugin'] ) ) {
			return 'plugin ' . $owner['wordpress.plugin'];
		}
		return isset( $owner['wordpress.theme'] ) ? 'theme ' . $owner['wordpress.theme'] : 'core ';
	}

	/**
	 * Return a row as JSON.
	 *
	 * @param string $kind    `plugin`, `theme`, `core` or `other`.
	 * @param string $name    Of the plugin or theme.
	 * @param array  $figures By name.
	 * @return string
	 */
	private static function row( $kind, $name, array $figures ) {
		$row = array( 'kind' => $kind ) + ( '' === $name ? array() : array( 'name' => $name ) );
		foreach ( $figures as $figure => $amount ) {
			$row[ $figure ] = is_float( $amount ) ? round( $amount, 3 ) : $amount;
		}
		return (string) wp_json_encode( $row, JSON_PARTIAL_OUTPUT_ON_ERROR | JSON_UNESCAPED_SLASHES );
	}
}
