<?php
/**
 * Registers all hooks.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Connects WordPress with the other classes of the plugin.
 *
 * It runs on every request, so it loads only the files that the request needs.
 */
final class Plugin {

	const HEARTBEAT = 'otelwp_heartbeat'; // The hook of WP-Cron.

	/**
	 * Start recording this request, and register the hooks of the dashboard, cron and WP-CLI.
	 */
	public static function boot() {
		if ( PHP_INT_SIZE >= 8 ) { // Times are nanoseconds in an integer.
			Request::begin();
		}
		add_filter( 'cron_schedules', array( Heartbeat::class, 'schedules' ) ); // phpcs:ignore WordPress.WP.CronInterval -- five minutes; visitors do not wait for it.
		// Validate the option for every way to change it: the Settings API validates only in the dashboard.
		add_filter( 'sanitize_option_' . Settings::OPTION, array( Settings::class, 'sanitize' ) );
		add_action( self::HEARTBEAT, array( Heartbeat::class, 'run' ) );
		if ( '' !== Settings::get( 'merchant_id' ) ) {
			add_action( 'shutdown', array( __CLASS__, 'save_error' ), PHP_INT_MAX, 0 );
			Events::watch();
		}
		if ( Agent::toggle( 'enable_debug' ) ) {
			add_action( 'otelwp_sent', array( Debug_Log::class, 'sent' ), 10, 6 );
		}
		add_action( 'rest_api_init', array( __CLASS__, 'rest' ) );
		if ( is_multisite() ) {
			add_action( 'wp_initialize_site', array( __CLASS__, 'initialize_site' ), 900 );
		}
		// register_activation_hook() would compute the plugin's name for every page.
		add_action( 'activate_plugin', array( __CLASS__, 'activate' ), 10, 2 );
		add_action( 'deactivate_plugin', array( __CLASS__, 'deactivate' ), 10, 2 );
		if ( is_admin() ) {
			add_action( 'admin_init', array( __CLASS__, 'prepare_site' ) );
			Admin\Settings_Page::register();
			Admin\Site_Health::register();
			Admin\Notices::register();
			add_action( 'init', array( __CLASS__, 'translate' ) );
		}
		if ( defined( 'WP_CLI' ) && WP_CLI ) {
			add_action( 'init', array( __CLASS__, 'translate' ) );
			\WP_CLI::add_command( 'otelwp', Cli\Command::class );
		}
	}

	/**
	 * Register the REST route.
	 */
	public static function rest() {
		self::translate(); // The dashboard shows the answers.
		register_rest_route(
			'otelwp/v1',
			'/agent',
			array(
				'methods'             => 'GET',
				'callback'            => array( Admin\Site_Health::class, 'test_agent' ),
				'permission_callback' => static function () {
					return current_user_can( 'view_site_health_checks' );
				},
			)
		);
	}

	/**
	 * Create the options, so that no request needs a query to check whether they exist.
	 *
	 * @param string $plugin       The plugin that is activated: any.
	 * @param bool   $network_wide Whether it is for all sites of a network.
	 */
	public static function activate( $plugin, $network_wide = false ) {
		if ( plugin_basename( OTELWP_FILE ) !== $plugin ) {
			return;
		}
		if ( $network_wide && is_multisite() ) {
			add_site_option( Settings::OPTION, Settings::defaults() );
			foreach ( self::site_ids() as $site ) {
				switch_to_blog( $site );
				self::prepare_site();
				restore_current_blog();
			}
			return;
		}
		self::prepare_site();
	}

	/**
	 * Load the translations that come with the plugin. Pages do not need them.
	 */
	public static function translate() {
		load_plugin_textdomain( 'otelwp', false, dirname( plugin_basename( OTELWP_FILE ) ) . '/languages' );
	}

	/**
	 * Save an error that ends this request as an event for the fleet. Most requests end without one, and load nothing.
	 */
	public static function save_error() {
		if ( null === error_get_last() ) {
			return;
		}
		try {
			Events::fatal();
		} catch ( \Throwable $error ) {
			// After an error, parts of WordPress may be missing: then the event is lost.
			Debug_Log::write( 'event not saved: ' . Redact::error( $error ) );
		}
	}

	/**
	 * Stop the heartbeat.
	 *
	 * @param string $plugin       The plugin that is deactivated: any.
	 * @param bool   $network_wide Whether it was active for all sites of a network.
	 */
	public static function deactivate( $plugin, $network_wide = false ) {
		if ( plugin_basename( OTELWP_FILE ) !== $plugin ) {
			return;
		}
		$sites = $network_wide && is_multisite() ? self::site_ids() : array( get_current_blog_id() );
		foreach ( $sites as $site ) {
			is_multisite() && switch_to_blog( $site );
			wp_clear_scheduled_hook( self::HEARTBEAT );
			is_multisite() && restore_current_blog();
		}
	}

	/**
	 * Prepare a site that was added to a network.
	 *
	 * @param \WP_Site $site The new site.
	 */
	public static function initialize_site( $site ) {
		if ( Settings::of_network() ) {
			switch_to_blog( $site->blog_id );
			self::prepare_site();
			restore_current_blog();
		}
	}

	/**
	 * Create the options of the current site, and its heartbeat, unless they exist.
	 */
	public static function prepare_site() {
		if ( Settings::of_network() ) {
			add_site_option( Settings::OPTION, Settings::defaults() );
		} else {
			add_option( Settings::OPTION, Settings::defaults() );
		}
		add_option( Agent::OPTION, array() );
		Breaker::prepare();
		Heartbeat::schedule();
	}

	/**
	 * List the sites of this network.
	 *
	 * @return int[]
	 */
	private static function site_ids() {
		return get_sites(
			array(
				'fields' => 'ids',
				'number' => 0,
			)
		);
	}
}
