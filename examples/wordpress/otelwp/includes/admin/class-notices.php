<?php
/**
 * Notices of the operator.
 *
 * @package Otelwp
 */

namespace Otelwp\Admin;

use Otelwp\Agent;
use Otelwp\Fleet;
use Otelwp\Settings;
use Otelwp\Toggles;

defined( 'ABSPATH' ) || exit;

/**
 * Shows administrators what the operator of the fleet has requested, on the dashboard and where plugins are managed.
 */
final class Notices {

	const DISMISS = 'otelwp_dismiss';

	const SCREENS = array( 'dashboard', 'dashboard-network', 'plugins', 'plugins-network', 'update-core', 'update-core-network', 'settings_page_otelwp', 'settings_page_otelwp-network' );

	/**
	 * Register the hooks.
	 */
	public static function register() {
		add_action( 'admin_notices', array( __CLASS__, 'show' ) );
		add_action( 'network_admin_notices', array( __CLASS__, 'show' ) );
		add_action( 'admin_post_' . self::DISMISS, array( __CLASS__, 'dismiss' ) );
	}

	/**
	 * Print the notices.
	 */
	public static function show() {
		$screen = get_current_screen();
		if ( null === $screen || ! in_array( $screen->id, self::SCREENS, true ) || ! current_user_can( self::capability() ) || ! Fleet::is_configured() ) {
			return;
		}
		if ( Agent::toggle( Toggles::BLOCK ) ) {
			/* translators: %s: date and time */
			self::notice( 'error', sprintf( __( 'The operator of the fleet has stopped OTelWP: it records nothing. Unless the operator repeats this, it continues on %s.', 'otelwp' ), wp_date( 'Y-m-d H:i:s', Agent::state()['toggles_until'] ) ) );
		}
		if ( Agent::toggle( Toggles::UPDATE ) ) {
			self::notice( 'error', __( 'The operator of the fleet requires an update of OTelWP. Install the newest version under Dashboard → Updates.', 'otelwp' ) );
		}
		foreach ( Fleet::state()['notices'] as $notice ) {
			/* translators: %s: version */
			$text = sprintf( __( 'Version %s of OTelWP is available.', 'otelwp' ), $notice['version'] );
			self::notice( in_array( $notice['priority'], array( 'high', 'critical' ), true ) ? 'warning' : 'info', trim( $text . ' ' . $notice['notes'] ), $notice['id'] );
		}
	}

	/**
	 * Remove the notice that the user has read.
	 */
	public static function dismiss() {
		check_admin_referer( self::DISMISS );
		if ( ! current_user_can( self::capability() ) ) {
			wp_die( esc_html__( 'Sorry, you are not allowed to dismiss this notice.', 'otelwp' ), 403 );
		}
		Fleet::acknowledge( isset( $_POST['notice'] ) ? sanitize_text_field( wp_unslash( $_POST['notice'] ) ) : '' );
		$back = wp_get_referer();
		wp_safe_redirect( $back ? $back : admin_url() );
		exit;
	}

	/**
	 * Print a notice.
	 *
	 * @param string $kind `error`, `warning` or `info`.
	 * @param string $text Its text.
	 * @param string $id   Of a notice that can be dismissed.
	 */
	private static function notice( $kind, $text, $id = '' ) {
		echo '<div class="notice notice-' . esc_attr( $kind ) . '"><p>' . esc_html( $text ) . '</p>';
		if ( '' !== $id ) {
			echo '<form action="' . esc_url( admin_url( 'admin-post.php' ) ) . '" method="post"><p><input type="hidden" name="action" value="' . esc_attr( self::DISMISS ) . '"><input type="hidden" name="notice" value="' . esc_attr( $id ) . '">';
			wp_nonce_field( self::DISMISS );
			echo '<button type="submit" class="button">' . esc_html__( 'Dismiss', 'otelwp' ) . '</button></p></form>';
		}
		echo '</div>';
	}

	/**
	 * Return the required capability.
	 *
	 * @return string
	 */
	private static function capability() {
		return Settings::of_network() ? 'manage_network_options' : 'manage_options';
	}
}
