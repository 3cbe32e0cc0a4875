<?php
/**
 * The time that plugins take in hooks.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Settings;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Measures functions that plugins and the theme have added to hooks, in a part of the recorded requests.
 *
 * When a hook of the list runs for the first time, each of these functions is replaced by one that measures it and calls
 * it. Only the field `function` of WordPress's list changes, so has_filter() and remove_filter() work as before.
 * Functions with parameters by reference are not measured, because a reference cannot be passed on. Functions that are
 * added to a hook after its first run are not measured either.
 *
 * The time of a plugin is self time: time in a function of another plugin that runs in a hook or as a shortcode belongs
 * to the other plugin.
 */
final class Profile {

	const HOOKS = array(
		// The start of each request.
		'plugins_loaded',
		'after_setup_theme',
		'init',
		'widgets_init',
		'wp_loaded',
		// The main query.
		'query_vars',
		'parse_request',
		'request',
		'pre_get_posts',
		'the_posts',
		'wp',
		// The page.
		'template_redirect',
		'template_include',
		'wp_enqueue_scripts',
		'wp_head',
		'wp_body_open',
		'body_class',
		'post_class',
		'the_title',
		'the_content',
		'the_excerpt',
		'get_the_excerpt',
		'the_posts_pagination',
		'post_thumbnail_html',
		'wp_get_attachment_image_attributes',
		'wp_nav_menu_items',
		'wp_nav_menu_objects',
		'nav_menu_css_class',
		'dynamic_sidebar_params',
		'widget_text',
		'comment_text',
		'comments_array',
		'pre_render_block',
		'render_block',
		'render_block_data',
		'pre_do_shortcode_tag',
		'do_shortcode_tag',
		'script_loader_tag',
		'style_loader_tag',
		'wp_footer',
		'wp_print_scripts',
		'wp_print_styles',
		'wp_print_footer_scripts',
		'shutdown',
		// The REST API, the dashboard, the login.
		'rest_api_init',
		'rest_pre_dispatch',
		'rest_request_before_callbacks',
		'rest_request_after_callbacks',
		'rest_post_dispatch',
		'rest_prepare_post',
		'admin_init',
		'admin_menu',
		'admin_enqueue_scripts',
		'admin_bar_menu',
		'admin_head',
		'admin_notices',
		'admin_footer',
		'current_screen',
		'login_init',
		'login_head',
		'authenticate',
		'wp_login',
		// Often used by plugins in between.
		'user_has_cap',
		'map_meta_cap',
		'http_request_args',
		'pre_http_request',
		'http_response',
		'wp_mail',
		'save_post',
		'transition_post_status',
		'wp_insert_post_data',
		'woocommerce_init',
		'woocommerce_get_price_html',
		'woocommerce_before_calculate_totals',
		'woocommerce_package_rates',
		'woocommerce_checkout_process',
	);

	const SPAN_NANOSECONDS = 5000000; // A call that takes at least as long has a span.

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * What each plugin used.
	 *
	 * @var Usage
	 */
	private $usage;

	/**
	 * The measured calls that have not returned: hook, attributes of the owner, start, and self time so far. Times are
	 * nanoseconds of the monotonic clock.
	 *
	 * @var array[]
	 */
	private $stack = array();

	/**
	 * When the innermost call began or continued: nanoseconds of the monotonic clock.
	 *
	 * @var int
	 */
	private $mark = 0;

	/**
	 * Decide whether this request is measured.
	 *
	 * @return bool
	 */
	public static function wanted() {
		$rate = (float) Settings::get( 'profile_rate' );
		return $rate >= 1 || $rate > 0 && random_int( 0, 999999 ) < $rate * 1000000;
	}

	/**
	 * Watch the hooks.
	 *
	 * @param Trace $trace The trace for the spans.
	 * @param int   $root  The span of the request.
	 * @param Usage $usage What each plugin used.
	 */
	public function __construct( Trace $trace, $root, Usage $usage ) {
		$this->trace = $trace;
		$this->usage = $usage;
		$trace->set( $root, array( 'wordpress.profile_rate' => (float) Settings::get( 'profile_rate' ) ) );
		foreach ( self::HOOKS as $hook ) {
			$this->watch( $hook );
		}
		if ( wp_doing_ajax() ) {
			add_action( 'admin_init', array( $this, 'watch_ajax' ), PHP_INT_MAX, 0 );
		}
		if ( wp_doing_cron() ) {
			add_action( 'wp_loaded', array( $this, 'watch_cron' ), PHP_INT_MIN, 0 );
		}
		add_action( 'wp_loaded', array( $this, 'measure_shortcodes' ), PHP_INT_MAX, 0 );
		add_action( 'shutdown', array( $this, 'finish' ), PHP_INT_MIN, 0 );
	}

	/**
	 * End the calls that will not return, because they have ended the request.
	 */
	public function finish() {
		while ( $this->stack ) {
			$this->leave();
		}
	}

	/**
	 * Watch the hooks of the AJAX action that is requested.
	 */
	public function watch_ajax() {
		// phpcs:ignore WordPress.Security -- compared with the names of existing hooks only.
		$action = isset( $_REQUEST['action'] ) && is_string( $_REQUEST['action'] ) ? wp_unslash( $_REQUEST['action'] ) : '';
		foreach ( array( 'wp_ajax_', 'wp_ajax_nopriv_' ) as $prefix ) {
			if ( has_action( $prefix . $action ) ) {
				$this->watch( $prefix . $action );
			}
		}
	}

	/**
	 * Watch the hooks that this cron run is about to call.
	 */
	public function watch_cron() {
		foreach ( wp_get_ready_cron_jobs() as $jobs ) {
			foreach ( array_keys( $jobs ) as $hook ) {
				$this->watch( (string) $hook );
			}
		}
	}

	/**
	 * Measure the functions of shortcodes.
	 */
	public function measure_shortcodes() {
		global $shortcode_tags;
		foreach ( (array) $shortcode_tags as $tag => $function ) {
			$shortcode_tags[ $tag ] = $this->measured( '[' . $tag . ']', $function ); // phpcs:ignore WordPress.WP.GlobalVariablesOverride.Prohibited -- the same function, measured.
		}
	}

	/**
	 * Measure the functions of a hook when it first runs.
	 *
	 * @param string $hook The hook.
	 */
	private function watch( $hook ) {
		$done = false;
		add_filter(
			$hook,
			function ( $value = null ) use ( $hook, &$done ) {
				if ( ! $done ) {
					$done = true;
					$this->measure_hook( $hook );
				}
				return $value;
			},
			PHP_INT_MIN
		);
	}

	/**
	 * Measure the functions of a hook.
	 *
	 * @param string $hook The hook, which is running.
	 */
	private function measure_hook( $hook ) {
		global $wp_filter;
		if ( ! isset( $wp_filter[ $hook ]->callbacks ) ) {
			return; // A function that ran before has removed the hook.
		}
		foreach ( $wp_filter[ $hook ]->callbacks as $priority => $callbacks ) {
			foreach ( PHP_INT_MIN === $priority ? array() : $callbacks as $id => $callback ) {
				$wp_filter[ $hook ]->callbacks[ $priority ][ $id ]['function'] = $this->measured( $hook, $callback['function'] );
			}
		}
	}

	/**
	 * Return a function that measures another one and calls it; the function itself if it cannot be measured, or belongs
	 * to WordPress or to this plugin.
	 *
	 * @param string   $hook     The hook.
	 * @param callable $function The function.
	 * @return callable
	 */
	private function measured( $hook, $function ) {
		$owner = Owner::of_callable( $function, true );
		if ( ! $owner ) {
			return $function;
		}
		return function ( ...$values ) use ( $hook, $function, $owner ) {
			$this->enter( $hook, $owner );
			$depth = count( $this->stack );
			try {
				return call_user_func_array( $function, $values );
			} finally {
				if ( count( $this->stack ) === $depth ) { // Else finish() has ended it.
					$this->leave();
				}
			}
		};
	}

	/**
	 * Begin a call.
	 *
	 * @param string $hook  The hook.
	 * @param array  $owner Attributes of its plugin or theme.
	 */
	private function enter( $hook, array $owner ) {
		$now = hrtime( true );
		$top = count( $this->stack ) - 1;
		if ( $top >= 0 ) {
			$this->stack[ $top ][3] += $now - $this->mark;
		}
		$this->stack[] = array( $hook, $owner, $now, 0 );
		$this->mark    = $now;
	}

	/**
	 * End the innermost call.
	 */
	private function leave() {
		$now = hrtime( true );
		list( $hook, $owner, $start, $self ) = array_pop( $this->stack );
		$this->usage->called( $owner, $hook, ( $self + $now - $this->mark ) / 1e6 );
		if ( $now - $start >= self::SPAN_NANOSECONDS ) {
			$end   = $this->trace->now();
			$began = $end - ( $now - $start );
			$this->trace->add( 'hook ' . $hook, Trace::INTERNAL, $began, $end, array( 'wordpress.hook' => $hook ) + $owner, $this->trace->at( $began, $end ) );
		}
		$this->mark = hrtime( true );
	}
}
