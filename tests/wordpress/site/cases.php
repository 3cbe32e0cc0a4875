<?php
/**
 * Plugin Name: Cases
 * Description: What can go wrong in a page, on demand: `?case=fatal`. For tests of OTelWP.
 */

defined( 'ABSPATH' ) || exit;

// What WooCommerce calls on its checkout, in its order. WooCommerce itself is not here.
add_action(
	'plugins_loaded',
	static function () {
		do_action( 'woocommerce_loaded' );
	}
);

// A plugin that keeps the database's object, as some do.
if ( 'kept' === ( $_GET['case'] ?? '' ) ) {
	$GLOBALS['otelwp_kept'] = $GLOBALS['wpdb'];
}

add_action(
	'template_redirect',
	static function () {
		global $wpdb;
		switch ( $_GET['case'] ?? '' ) {
			case 'fatal':
				otelwp_no_such_function( 'secret argument' );
				break;
			case 'exception':
				throw new DomainException( 'No mail to jane@example.org about ' . ABSPATH . 'x' );
			case 'memory':
				ini_set( 'memory_limit', '40M' );
				$all = array();
				while ( true ) {
					$all[] = str_repeat( 'x', 1 << 20 );
				}
				break;
			case 'exit':
				exit( 'bye' );
			case 'caused':
				throw new LogicException( 'the effect', 0, new DomainException( 'the cause' ) );
			case 'anonymous':
				throw new class( 'nobody' ) extends RuntimeException {};
			case 'wpdb':
			case 'kept':
				$wpdb->set_blog_id( $wpdb->blogid );
				$like = $wpdb->get_var( $wpdb->prepare( 'SELECT %s', '100% of it' ) );
				wp_send_json( array( get_class( $wpdb ), $like, ( $GLOBALS['otelwp_kept'] ?? $wpdb ) === $wpdb ) );
			case 'die':
				wp_die( 'Not today', 'Closed', array( 'response' => 503 ) );
				break;
			case 'forbidden':
				wp_die( new WP_Error( 'no_entry', 'Members only' ), 403 );
				break;
			case 'repeated':
				for ( $i = 0; $i < 25; $i++ ) {
					$wpdb->get_var( $wpdb->prepare( "SELECT meta_value FROM $wpdb->postmeta WHERE post_id = %d AND meta_key = %s", $i, "secret$i" ) );
				}
				break;
			case 'slow':
				$wpdb->query( 'SELECT SLEEP(0.08)' );
				break;
			case 'failing':
				$wpdb->suppress_errors();
				$wpdb->query( "SELECT 'secret' FROM no_such_table" );
				break;
			case 'many':
				for ( $i = 0; $i < 3000; $i++ ) {
					$wpdb->query( "SELECT $i AS n$i" );
				}
				break;
			case 'shapes':
				for ( $i = 0; $i < 700; $i++ ) {
					$wpdb->query( "SELECT 1 AS n$i" );
				}
				for ( $i = 0; $i < 25; $i++ ) {
					$wpdb->query( "SELECT $i AS late" );
				}
				break;
			case 'options':
				for ( $i = 0; $i < 25; $i++ ) {
					update_option( 'cases_counter', $i . '-' . wp_rand() );
				}
				break;
			case 'nested':
				$once = static function ( $sql ) use ( &$once ) {
					global $wpdb;
					remove_filter( 'query', $once );
					$wpdb->query( 'SELECT SLEEP(0.5) AS inner_query' );
					return $sql;
				};
				add_filter( 'query', $once );
				$wpdb->query( 'SELECT SLEEP(0.01) AS outer_query' );
				break;
			case 'savequeries':
				wp_send_json( array( defined( 'SAVEQUERIES' ), count( (array) $wpdb->queries ) ) );
				break;
			case 'rewritten':
				wp_remote_get( str_replace( 'http:', 'HTTP:', $_GET['to'] ) . '/a' );
				usleep( 20000 );
				wp_remote_get( $_GET['to'] . '/b' );
				break;
			case 'http':
				$to = $_GET['to'];
				wp_remote_get( "$to/hook/secret?token=secret" );
				wp_remote_post( "$to/late", array( 'blocking' => false, 'headers' => "X-Own: 1\r\nX-Two: 2" ) );
				wp_remote_get( "$to/own", array( 'headers' => array( 'TraceParent' => 'mine' ) ) );
				wp_remote_get( "$to/500" );
				wp_remote_get( 'http://127.0.0.1:9/' );
				add_filter( 'pre_http_request', static fn( $answer, $args, $url ) => false === strpos( $url, 'cached' ) ? $answer : array( 'response' => array( 'code' => 200 ) ), 10, 3 );
				wp_remote_get( 'http://cached.example/' );
				break;
			case 'mail':
				add_filter( 'pre_wp_mail', static fn( $taken, $mail ) => 'taken' === $mail['subject'] ? true : $taken, 10, 2 );
				add_action( 'phpmailer_init', static function ( $mailer ) { $mailer->isSMTP(); $mailer->Host = '127.0.0.1'; $mailer->Port = 9; } );
				wp_mail( 'jane@example.org', 'taken', 'x' );
				wp_mail( 'jane@example.org', 'refused', 'x' );
				break;
			case 'rest':
				rest_do_request( new WP_REST_Request( 'GET', '/wp/v2/posts' ) );
				rest_do_request( new WP_REST_Request( 'GET', '/wp/v2/posts/999999' ) );
				break;
			case 'part':
				$file = get_temp_dir() . 'slow-part.php';
				file_put_contents( $file, '<?php usleep( 5000 );' );
				load_template( $file, false );
				break;
			case 'checkout':
			case 'declined':
				$order = new class() {
					public function get_payment_method() {
						return 'cheque';
					}
				};
				do_action( 'woocommerce_before_checkout_process' );
				do_action( 'woocommerce_checkout_order_processed', 7, array( 'billing_email' => 'jane@example.org' ), $order );
				if ( 'declined' === $_GET['case'] ) {
					do_action( 'woocommerce_order_status_changed', 7, 'pending', 'failed', $order );
					wp_send_json( array( 'result' => 'failure' ) );
				}
				do_action( 'woocommerce_payment_complete', 7 );
				do_action( 'woocommerce_order_status_changed', 7, 'pending', 'processing', $order );
				apply_filters( 'woocommerce_payment_successful_result', array( 'result' => 'success' ), 7 );
				wp_send_json( array( 'result' => 'success' ) );
				break;
			case 'bytes':
				do_action( 'woocommerce_order_status_changed', 7, "caf\xe9", 'x', null );
				break;
		}
	},
	20
);

add_action(
	'init',
	static function () {
		if ( 'early' === ( $_GET['case'] ?? '' ) ) {
			exit( 'bye' );
		}
	}
);

// As plugins that print their own sitemap do: before the main query.
add_action(
	'parse_request',
	static function ( $wp ) {
		if ( 'sitemap' === ( $_GET['case'] ?? '' ) ) {
			$wp->query_vars['sitemap_n'] = '1';
			exit( '<urlset/>' );
		}
	}
);

add_action(
	'admin_menu',
	static function () {
		add_management_page( 'Redirection', 'Redirection', 'manage_options', 'redirection.php', '__return_null' );
	}
);

add_action(
	'cases_cron',
	static function () {
		usleep( 2000 );
	}
);
