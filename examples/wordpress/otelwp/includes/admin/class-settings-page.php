<?php
/**
 * The settings page.
 *
 * @package Otelwp
 */

namespace Otelwp\Admin;

use Otelwp\Agent;
use Otelwp\Breaker;
use Otelwp\Destination;
use Otelwp\Endpoint;
use Otelwp\Fleet;
use Otelwp\Heartbeat;
use Otelwp\Redact;
use Otelwp\Sender;
use Otelwp\Settings;
use Otelwp\Site;
use Otelwp\Test_Trace;
use Otelwp\Toggles;

defined( 'ABSPATH' ) || exit;

/**
 * Settings → OTelWP; on a network where the plugin runs for all sites, Network Admin → Settings → OTelWP.
 */
final class Settings_Page {

	const SLUG = 'otelwp';

	const SAVE = 'otelwp_network_save';

	const TEST = 'otelwp_test';

	/**
	 * Register the hooks.
	 */
	public static function register() {
		add_action( 'admin_init', array( __CLASS__, 'register_setting' ) );
		add_action( 'admin_init', array( __CLASS__, 'privacy' ) );
		add_action( 'admin_menu', array( __CLASS__, 'menu' ) );
		add_action( 'network_admin_menu', array( __CLASS__, 'network_menu' ) );
		add_action( 'network_admin_edit_' . self::SAVE, array( __CLASS__, 'save_network' ) );
		add_action( 'admin_post_' . self::TEST, array( __CLASS__, 'test' ) );
		$links = array( __CLASS__, 'links' );
		add_filter( 'plugin_action_links_' . plugin_basename( OTELWP_FILE ), $links );
		add_filter( 'network_admin_plugin_action_links_' . plugin_basename( OTELWP_FILE ), $links );
	}

	/**
	 * Register the option in the Settings API.
	 */
	public static function register_setting() {
		register_setting(
			self::SLUG,
			Settings::OPTION,
			array(
				'type'              => 'object',
				'sanitize_callback' => array( Settings::class, 'sanitize' ),
				'default'           => Settings::defaults(),
				'show_in_rest'      => false,
			)
		);
		foreach ( Fields::sections() as $section => $title ) {
			$folded = Fields::BASIC === $section ? array() : array(
				'before_section' => '<details><summary><strong>' . esc_html( $title ) . '</strong></summary>',
				'after_section'  => '</details>',
			);
			add_settings_section( $section, $folded ? '' : $title, '__return_null', self::SLUG, $folded );
		}
		foreach ( Fields::all() as $key => $field ) {
			add_settings_field(
				$key,
				$field['label'],
				array( Fields::class, 'show' ),
				self::SLUG,
				$field['section'],
				array(
					'key'       => $key,
					'label_for' => 'otelwp-' . $key,
				) + $field
			);
		}
	}

	/**
	 * Add the page of a site.
	 */
	public static function menu() {
		if ( ! Settings::of_network() ) {
			add_options_page( __( 'OTelWP', 'otelwp' ), __( 'OTelWP', 'otelwp' ), 'manage_options', self::SLUG, array( __CLASS__, 'show' ) );
		}
	}

	/**
	 * Add the page of a network.
	 */
	public static function network_menu() {
		if ( Settings::of_network() ) {
			add_submenu_page( 'settings.php', __( 'OTelWP', 'otelwp' ), __( 'OTelWP', 'otelwp' ), 'manage_network_options', self::SLUG, array( __CLASS__, 'show' ) );
		}
	}

	/**
	 * Add the link in the list of plugins.
	 *
	 * @param string[] $links Of this plugin.
	 * @return string[]
	 */
	public static function links( $links ) {
		array_unshift( $links, '<a href="' . esc_url( self::url() ) . '">' . esc_html__( 'Settings', 'otelwp' ) . '</a>' );
		return $links;
	}

	/**
	 * Suggest a text for the site's privacy policy.
	 */
	public static function privacy() {
		wp_add_privacy_policy_content(
			'OTelWP',
			wp_kses_post(
				'<p>' . __( 'To find out what is slow, this site measures how it answers requests: the path of the page, the time, the number and shape of database queries, and errors. Addresses of visitors, their browsers, cookies, names, input and search terms are not included. The measurements are sent to a program on our own server, which may forward them to the service with which we monitor our site.', 'otelwp' ) . '</p>'
			)
		);
	}

	/**
	 * Print the page.
	 */
	public static function show() {
		if ( ! current_user_can( self::capability() ) ) {
			return;
		}
		// phpcs:ignore WordPress.Security.NonceVerification -- it only shows a message.
		if ( Settings::of_network() && isset( $_GET['updated'] ) ) {
			add_settings_error( Settings::OPTION, 'saved', __( 'Settings saved.', 'otelwp' ), 'success' );
		}
		$action = Settings::of_network() ? network_admin_url( 'edit.php?action=' . self::SAVE ) : admin_url( 'options.php' );
		echo '<div class="wrap"><h1>' . esc_html( get_admin_page_title() ) . '</h1>';
		if ( Settings::of_network() ) {
			settings_errors( Settings::OPTION ); // options-general.php shows them itself.
		}
		self::show_test_result();
		self::show_status();
		echo '<form action="' . esc_url( $action ) . '" method="post">';
		settings_fields( self::SLUG );
		do_settings_sections( self::SLUG );
		submit_button();
		echo '</form></div>';
	}

	/**
	 * Save the form of a network.
	 */
	public static function save_network() {
		check_admin_referer( self::SLUG . '-options' ); // The nonce of settings_fields().
		if ( ! current_user_can( 'manage_network_options' ) ) {
			wp_die( esc_html__( 'Sorry, you are not allowed to change these settings.', 'otelwp' ), 403 );
		}
		// phpcs:ignore WordPress.Security.ValidatedSanitizedInput -- Settings::sanitize() does, by the type of each field.
		$input = isset( $_POST[ Settings::OPTION ] ) ? wp_unslash( $_POST[ Settings::OPTION ] ) : array();
		Settings::save( Settings::sanitize( $input ) );
		set_transient( 'settings_errors', get_settings_errors(), 30 );
		wp_safe_redirect( add_query_arg( array( 'updated' => 'true' ), self::url() ) );
		exit;
	}

	/**
	 * Send the test trace that the user requested.
	 */
	public static function test() {
		check_admin_referer( self::TEST );
		if ( ! current_user_can( self::capability() ) ) {
			wp_die( esc_html__( 'Sorry, you are not allowed to send traces.', 'otelwp' ), 403 );
		}
		set_transient( 'otelwp_test_' . get_current_user_id(), Test_Trace::send(), 5 * MINUTE_IN_SECONDS );
		wp_safe_redirect( add_query_arg( array( 'otelwp-test' => '1' ), self::url() ) );
		exit;
	}

	/**
	 * Return the address of the page.
	 *
	 * @return string
	 */
	private static function url() {
		return Settings::of_network() ? network_admin_url( 'settings.php?page=' . self::SLUG ) : admin_url( 'options-general.php?page=' . self::SLUG );
	}

	/**
	 * Return the required capability.
	 *
	 * @return string
	 */
	private static function capability() {
		return Settings::of_network() ? 'manage_network_options' : 'manage_options';
	}

	/**
	 * Print the result of a test trace.
	 */
	private static function show_test_result() {
		// phpcs:ignore WordPress.Security.NonceVerification -- the result is this user's own.
		$result = isset( $_GET['otelwp-test'] ) ? get_transient( 'otelwp_test_' . get_current_user_id() ) : false;
		if ( ! is_array( $result ) ) {
			return;
		}
		$taken = array_keys( $result['endpoints'], '', true );
		$kind  = count( $taken ) === count( $result['endpoints'] ) ? 'success' : 'warning';
		echo '<div class="notice notice-' . ( $taken ? esc_attr( $kind ) : 'error' ) . ' is-dismissible"><p>';
		if ( $taken ) {
			/* translators: %s: id of a trace */
			printf( 'success' === $kind ? esc_html__( 'The test trace was accepted. Its id is %s.', 'otelwp' ) : esc_html__( 'Only a part of the endpoints accepted the test trace. Its id is %s.', 'otelwp' ), '<code>' . esc_html( $result['trace_id'] ) . '</code>' );
			self::show_link( '/#/trace?id=' . $result['trace_id'], __( 'Open this trace on the page of the agent', 'otelwp' ) );
		} else {
			esc_html_e( 'No endpoint accepted the test trace.', 'otelwp' );
		}
		echo '</p><ul>';
		foreach ( $result['endpoints'] as $endpoint => $why ) {
			echo '<li><code>' . esc_html( Redact::address( (string) $endpoint ) ) . '</code> ' . esc_html( '' === $why ? __( 'accepted it', 'otelwp' ) : $why ) . '</li>';
		}
		echo '</ul></div>';
	}

	/**
	 * Print a link to the page of the agent, if its address is configured.
	 *
	 * @param string $path Of the page.
	 * @param string $text Of the link.
	 */
	private static function show_link( $path, $text ) {
		$url = (string) Settings::get( 'ui_url' );
		if ( '' !== $url ) {
			echo ' <a href="' . esc_url( rtrim( $url, '/' ) . $path, array( 'http', 'https' ) ) . '" rel="noopener noreferrer">' . esc_html( $text ) . '</a>';
		}
	}

	/**
	 * Return rows about the fleet.
	 *
	 * @return array<string, string>
	 */
	private static function fleet() {
		if ( ! Fleet::is_configured() ) {
			return array();
		}
		$state = Fleet::state();
		$agent = Agent::state();
		$on    = array_filter( Toggles::KEYS, array( Agent::class, 'toggle' ) );
		if ( '' !== $state['problem'] ) {
			/* translators: %s: why */
			$toggles = sprintf( __( 'not obeyed: %s', 'otelwp' ), $state['problem'] );
		} elseif ( $on ) {
			/* translators: 1: names of toggles, 2: date and time */
			$toggles = sprintf( __( '%1$s, until %2$s', 'otelwp' ), implode( ', ', $on ), wp_date( 'Y-m-d H:i:s', $agent['toggles_until'] ) );
		} else {
			$toggles = __( 'none', 'otelwp' );
		}
		return array(
			__( 'Installation', 'otelwp' )             => '' === $state['installation'] ? __( 'not registered yet', 'otelwp' ) : $state['installation'],
			__( 'Toggles of the operator', 'otelwp' ) => $toggles,
		);
	}

	/**
	 * Print the current state.
	 */
	private static function show_status() {
		$state = Agent::state();
		$rows  = array( __( 'Service name', 'otelwp' ) => Site::service_name() );
		if ( isset( $state['problem'] ) ) {
			/* translators: %s: why */
			$rows[ __( 'Agent', 'otelwp' ) ] = sprintf( __( 'did not answer: %s', 'otelwp' ), $state['problem'] );
		} elseif ( isset( $state['at'] ) ) {
			/* translators: %s: how long ago, like "5 mins" */
			$rows[ __( 'Agent', 'otelwp' ) ] = sprintf( __( 'answered %s ago', 'otelwp' ), human_time_diff( $state['at'] ) );
		} else {
			$rows[ __( 'Agent', 'otelwp' ) ] = __( 'was not contacted yet; WP-Cron does so every five minutes', 'otelwp' );
		}
		$rows[ __( 'Licence', 'otelwp' ) ]           = implode( ': ', array_filter( array( Agent::tier(), implode( ', ', Agent::features() ) ) ) );
		$rows[ __( 'Requests recorded', 'otelwp' ) ] = Agent::is_paused() ? ( Agent::wish( 'paused' ) ? __( 'none, the agent requested a pause', 'otelwp' ) : __( 'none, the operator of the fleet has stopped this plugin', 'otelwp' ) ) : number_format_i18n( 100 * Agent::sampling_rate(), 1 ) . ' %';

		if ( Heartbeat::has_key() ) {
			/* translators: %s: name of a constant */
			$rows[ __( 'API key', 'otelwp' ) ] = Heartbeat::sends_key() ? __( 'sent to the agent', 'otelwp' ) : sprintf( __( 'not sent: define %s in wp-config.php, because the key is sent only to an address that is configured there', 'otelwp' ), Heartbeat::constant() );
		}
		$rows   += self::fleet();
		$failing = ( new Breaker() )->failing();
		foreach ( (array) Settings::get( 'endpoints' ) as $text ) {
			$endpoint = Endpoint::parse( $text, Settings::is_constant( 'endpoints' ) );
			$refusal  = null === $endpoint ? __( 'the endpoint is invalid', 'otelwp' ) : Destination::explain( $endpoint->refusal(), 'endpoints' );
			$shown    = Redact::address( $text );
			if ( '' !== $refusal ) {
				$rows[ $shown ] = $refusal;
			} elseif ( isset( $failing[ $text ] ) ) {
				/* translators: 1: how long ago, 2: why */
				$rows[ $shown ] = sprintf( __( 'failing since %1$s: %2$s', 'otelwp' ), human_time_diff( $failing[ $text ]['since'] ), Destination::explain( $failing[ $text ]['why'], 'endpoints' ) );
			} else {
				$rows[ $shown ] = __( 'no known failure', 'otelwp' );
			}
		}
		$counts = Sender::counts();
		if ( null !== $counts ) {
			/* translators: 1: number of traces, 2: number of traces */
			$rows[ __( 'Traces', 'otelwp' ) ] = sprintf( __( '%1$s sent, %2$s lost since PHP started', 'otelwp' ), number_format_i18n( $counts['sent'] ), number_format_i18n( $counts['lost'] ) );
		}
		$last = Sender::last();
		if ( null !== $last ) {
			/* translators: 1: time of day, 2: number of spans, 3: address of the agent */
			$rows[ __( 'Last trace', 'otelwp' ) ] = sprintf( __( 'at %1$s, %2$s spans, accepted by %3$s', 'otelwp' ), wp_date( 'H:i:s', $last['at'] ), number_format_i18n( $last['spans'] ), Redact::address( $last['endpoint'] ) );
		}
		echo '<h2>' . esc_html__( 'State', 'otelwp' ) . '</h2><table class="widefat striped" style="max-width: 60em; overflow-wrap: anywhere"><tbody>';
		foreach ( $rows as $name => $value ) {
			echo '<tr><th scope="row" style="width: 35%">' . esc_html( $name ) . '</th><td>' . esc_html( $value ) . '</td></tr>';
		}
		echo '</tbody></table><p>';
		self::show_link( '/', __( 'Open the page of the agent', 'otelwp' ) );
		echo '</p><form action="' . esc_url( admin_url( 'admin-post.php' ) ) . '" method="post">';
		echo '<input type="hidden" name="action" value="' . esc_attr( self::TEST ) . '">';
		wp_nonce_field( self::TEST );
		submit_button( __( 'Send a test trace', 'otelwp' ), 'secondary' );
		echo '</form>';
	}
}
