<?php
/**
 * The phases of a request.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Route;
use Otelwp\Settings;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Divides a request into the phases of WordPress: bootstrap, plugins, init, then query and template, or rest, admin,
 * ajax, login, cron, xmlrpc, command, and shutdown.
 *
 * Each phase has its number of queries, and of hits and misses of the object cache, which WordPress counts anyway.
 */
final class Phases {

	/**
	 * The trace for the spans.
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
	 * The span of the phase.
	 *
	 * @var int
	 */
	private $phase;

	/**
	 * Queries, cache hits and misses when the phase began.
	 *
	 * @var int[]
	 */
	private $counters = array( 0, 0, 0 );

	/**
	 * Start with the phase bootstrap, which began before the plugin was loaded.
	 *
	 * @param Trace $trace The trace for the spans.
	 * @param int   $root  The span of the request.
	 */
	public function __construct( Trace $trace, $root ) {
		$this->trace = $trace;
		$this->root  = $root;
		$this->phase = $trace->open( 'bootstrap', Trace::INTERNAL, array(), $trace->spans[ $root ][ Trace::START ] );
		add_action( 'plugins_loaded', array( $this, 'plugins' ), PHP_INT_MAX, 0 );
		add_action( 'init', array( $this, 'init' ), PHP_INT_MIN, 0 );
		add_action( 'wp_loaded', array( $this, 'loaded' ), PHP_INT_MAX, 0 );
		add_action( 'rest_api_init', array( $this, 'rest' ), PHP_INT_MIN, 0 );
		add_action( 'wp', array( Route::class, 'note_query' ), PHP_INT_MAX, 0 );
		add_action( 'template_redirect', array( $this, 'template' ), PHP_INT_MIN, 0 );
		add_filter( 'template_include', array( $this, 'template_file' ), PHP_INT_MAX );
		add_action( 'shutdown', array( $this, 'shutdown' ), PHP_INT_MIN, 0 );
		if ( Settings::get( 'server_timing' ) ) {
			foreach ( array( 'send_headers', 'admin_init', 'login_init', 'rest_api_init' ) as $hook ) {
				add_action( $hook, array( $this, 'server_timing' ), PHP_INT_MAX, 0 );
			}
		}
	}

	/**
	 * Start the phase plugins: all plugins are loaded, the theme is next.
	 */
	public function plugins() {
		$this->enter( 'plugins' );
	}

	/**
	 * Start the phase init: plugins and theme initialize.
	 */
	public function init() {
		$this->enter( 'init' );
	}

	/**
	 * Start the phase after initialization, which depends on the type of the request.
	 */
	public function loaded() {
		$type   = Route::type();
		$phases = array(
			'front' => 'query',
			'cli'   => 'command',
		);
		$this->enter( isset( $phases[ $type ] ) ? $phases[ $type ] : $type );
	}

	/**
	 * Start the phase rest, if this is a request to the REST API. (Pages may start the REST server, too.)
	 */
	public function rest() {
		if ( defined( 'REST_REQUEST' ) && REST_REQUEST ) {
			$this->enter( 'rest' );
		}
	}

	/**
	 * Start the phase template: the main query has run.
	 */
	public function template() {
		$this->enter( 'template' );
	}

	/**
	 * Record the template.
	 *
	 * @param string $file Its path.
	 * @return string
	 */
	public function template_file( $file ) {
		global $_wp_current_template_id;
		// The template of a block theme is a post; its file is always the same.
		$name = is_string( $_wp_current_template_id ) && '' !== $_wp_current_template_id ? $_wp_current_template_id : basename( (string) $file );
		$this->trace->set(
			$this->phase,
			array(
				'wordpress.template' => $name,
				'wordpress.theme'    => get_stylesheet(),
			)
		);
		return $file;
	}

	/**
	 * Start the phase shutdown: the response is written.
	 */
	public function shutdown() {
		$this->enter( 'shutdown' );
	}

	/**
	 * Write the totals.
	 */
	public function finish() {
		$this->trace->close( $this->phase, $this->delta() );
		$now = $this->count();
		$this->trace->set(
			$this->root,
			array(
				'wordpress.db.query_count' => $now[0],
				'wordpress.cache.hits'     => $now[1],
				'wordpress.cache.misses'   => $now[2],
			)
		);
	}

	/**
	 * Send the trace id and the duration of the phases so far to the browser.
	 */
	public function server_timing() {
		if ( headers_sent() ) {
			return;
		}
		$entries = array( 'traceparent;desc="' . $this->trace->context->traceparent( $this->trace->id( $this->root ), true ) . '"' );
		foreach ( $this->trace->spans as $span ) {
			if ( $this->root === $span[ Trace::PARENT ] && $span[ Trace::END ] ) {
				$entries[] = $span[ Trace::NAME ] . ';dur=' . round( ( $span[ Trace::END ] - $span[ Trace::START ] ) / 1e6, 1 );
			}
		}
		header( 'Server-Timing: ' . implode( ', ', $entries ), false );
	}

	/**
	 * End a phase and start the next.
	 *
	 * @param string $name Of the next.
	 */
	private function enter( $name ) {
		if ( Trace::NONE !== $this->phase && $name === $this->trace->spans[ $this->phase ][ Trace::NAME ] ) {
			return;
		}
		$this->trace->close( $this->phase, $this->delta() );
		$this->phase = $this->trace->open( $name );
	}

	/**
	 * Return the phase's queries, cache hits and cache misses, and reset the counters.
	 *
	 * @return array
	 */
	private function delta() {
		$now            = $this->count();
		$before         = $this->counters;
		$this->counters = $now;
		return array(
			'wordpress.db.query_count' => $now[0] - $before[0],
			'wordpress.cache.hits'     => $now[1] - $before[1],
			'wordpress.cache.misses'   => $now[2] - $before[2],
		);
	}

	/**
	 * Return queries, cache hits and cache misses so far.
	 *
	 * @return int[]
	 */
	private function count() {
		global $wpdb, $wp_object_cache;
		return array(
			isset( $wpdb->num_queries ) ? (int) $wpdb->num_queries : 0,
			isset( $wp_object_cache->cache_hits ) && is_int( $wp_object_cache->cache_hits ) ? $wp_object_cache->cache_hits : 0,
			isset( $wp_object_cache->cache_misses ) && is_int( $wp_object_cache->cache_misses ) ? $wp_object_cache->cache_misses : 0,
		);
	}
}
