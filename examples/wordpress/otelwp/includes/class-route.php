<?php
/**
 * The kind of the request.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Gives requests names of low cardinality: the kind of page, never its address.
 */
final class Route {

	const METHODS = array( 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS' );

	const LOGIN_ACTIONS = array( 'confirm_admin_email', 'confirmaction', 'logout', 'lostpassword', 'postpass', 'register', 'resetpass', 'rp' );

	/**
	 * Scripts of WordPress that answer without a template, and the names of their requests.
	 */
	const SCRIPTS = array(
		'wp-activate.php'      => 'activate',
		'wp-comments-post.php' => 'comment',
		'wp-links-opml.php'    => 'links',
		'wp-mail.php'          => 'mail',
		'wp-signup.php'        => 'signup',
		'wp-trackback.php'     => 'trackback',
	);

	const MAX_DETAIL = 100; // Maximum bytes of the name of a page in the dashboard.

	/**
	 * The kind of page, once WordPress has determined it.
	 *
	 * @var string
	 */
	private static $front = '';

	/**
	 * A detail from a collector: REST route, XML-RPC method.
	 *
	 * @var string
	 */
	private static $found = '';

	/**
	 * Record the route of the request. Only the first call counts, because a REST request can make others.
	 *
	 * @param string $detail Of low cardinality.
	 */
	public static function note( $detail ) {
		if ( '' === self::$found ) {
			self::$found = $detail;
		}
	}

	/**
	 * Record the kind of page of the main query; called when it has run.
	 */
	public static function note_query() {
		self::$front = self::of_query();
	}

	/**
	 * Return the type of the request.
	 *
	 * @return string
	 */
	public static function type() {
		global $pagenow;
		if ( wp_doing_cron() ) {
			return 'cron';
		}
		if ( defined( 'WP_CLI' ) || ! Request::is_http() ) {
			return 'cli';
		}
		if ( wp_doing_ajax() ) {
			return 'ajax';
		}
		if ( defined( 'REST_REQUEST' ) && REST_REQUEST ) {
			return 'rest';
		}
		if ( defined( 'XMLRPC_REQUEST' ) && XMLRPC_REQUEST ) {
			return 'xmlrpc';
		}
		if ( is_admin() ) {
			return 'admin';
		}
		return in_array( $pagenow, array( 'wp-login.php', 'wp-register.php' ), true ) ? 'login' : 'front';
	}

	/**
	 * Return the route: `single`, `rest /wp/v2/posts/{id}`, `admin edit.php`, …
	 *
	 * @return string
	 */
	public static function get() {
		$type = self::type();
		switch ( $type ) {
			case 'front':
				return self::front();
			case 'ajax':
				$detail = self::known_hook( 'action', array( 'wp_ajax_', 'wp_ajax_nopriv_' ) );
				break;
			case 'admin':
				$detail = self::admin_page();
				break;
			case 'login':
				$action = self::parameter( 'action' );
				$detail = in_array( $action, self::LOGIN_ACTIONS, true ) ? $action : '';
				break;
			case 'cli':
				$detail = self::command();
				break;
			default:
				$detail = self::$found;
		}
		return '' === $detail ? $type : $type . ' ' . $detail;
	}

	/**
	 * Return the name of the request's span.
	 *
	 * @return string
	 */
	public static function name() {
		return ( Request::is_http() ? self::method() . ' ' : '' ) . self::get();
	}

	/**
	 * Return attributes of the request, by OpenTelemetry's conventions where they exist.
	 *
	 * Without query string, client address, user agent and user: they identify the visitor, not the slow code.
	 *
	 * @return array
	 */
	public static function attributes() {
		global $current_user;
		$attributes = array( 'wordpress.request.type' => self::type() );
		if ( ! Request::is_http() ) {
			return $attributes;
		}
		$attributes['http.request.method']      = self::method( '_OTHER' );
		$attributes['http.route']               = self::get();
		$attributes['url.scheme']               = is_ssl() ? 'https' : 'http';
		$attributes['url.path']                 = Secrets::redact( substr( (string) strtok( Request::server( 'REQUEST_URI' ), '?#' ), 0, 512 ) );
		$attributes['server.address']           = Site::host();
		$attributes['network.protocol.version'] = substr( (string) strrchr( Request::server( 'SERVER_PROTOCOL' ), '/' ), 1 );
		// is_user_logged_in() might query the database.
		$attributes['wordpress.user.logged_in'] = $current_user instanceof \WP_User && $current_user->exists();
		if ( Settings::get( 'query_string' ) ) {
			$attributes['url.query'] = Redact::query( Request::server( 'QUERY_STRING' ) );
		}
		return $attributes;
	}

	/**
	 * Return the method if it is a known one.
	 *
	 * @param string $other Replacement for all others.
	 * @return string
	 */
	private static function method( $other = 'HTTP' ) {
		$method = Request::server( 'REQUEST_METHOD' );
		return in_array( $method, self::METHODS, true ) ? $method : $other;
	}

	/**
	 * Return the kind of a page that visitors see.
	 *
	 * @return string
	 */
	private static function front() {
		global $pagenow;
		if ( '' === self::$front && did_action( 'wp' ) ) {
			self::note_query(); // Not recorded when the query ran, because the request was not sampled.
		}
		$status = http_response_code();
		if ( '404' === self::$front && is_int( $status ) && $status >= 300 && $status < 400 ) {
			return 'redirect'; // WordPress or a plugin knows a page with a similar address.
		}
		if ( '' !== self::$front ) {
			return self::$front;
		}
		if ( is_string( $pagenow ) && isset( self::SCRIPTS[ $pagenow ] ) ) {
			return self::SCRIPTS[ $pagenow ];
		}
		return self::before_query();
	}

	/**
	 * Return the kind of a request that a plugin answered before the main query had run.
	 *
	 * @return string
	 */
	private static function before_query() {
		global $wp;
		$variables = isset( $wp->query_vars ) && is_array( $wp->query_vars ) ? array_keys( array_filter( $wp->query_vars ) ) : array();
		foreach ( array( 'sitemap', 'robots', 'favicon', 'feed' ) as $kind ) {
			if ( preg_grep( '/(?:^|_)' . $kind . '(?:$|[_-])/', $variables ) ) {
				return $kind;
			}
		}
		return 'early exit';
	}

	/**
	 * Return the kind of page of the main query.
	 *
	 * @return string
	 */
	private static function of_query() {
		$wc_ajax = self::known_hook( 'wc-ajax', array( 'wc_ajax_' ) );
		if ( '' !== $wc_ajax ) {
			return 'wc-ajax ' . $wc_ajax;
		}
		if ( get_query_var( 'sitemap' ) || get_query_var( 'sitemap-stylesheet' ) ) {
			return 'sitemap';
		}
		// WooCommerce's pages are pages too, so its own conditions are checked first.
		foreach ( array( 'is_checkout', 'is_cart', 'is_account_page' ) as $condition ) {
			if ( function_exists( $condition ) && $condition() ) {
				return substr( $condition, 3 );
			}
		}
		foreach ( array( 'robots', 'favicon', 'trackback', '404', 'feed', 'embed', 'search', 'front_page', 'home', 'privacy_policy', 'attachment', 'page' ) as $class ) {
			$condition = 'is_' . $class;
			if ( function_exists( $condition ) && $condition() ) {
				return 'front_page' === $class ? 'front' : $class;
			}
		}
		if ( is_singular() ) {
			$type = get_post_type();
			return 'post' === $type || ! $type ? 'single' : 'single ' . $type;
		}
		if ( is_tax() ) {
			$term = get_queried_object();
			return $term instanceof \WP_Term ? 'taxonomy ' . $term->taxonomy : 'taxonomy';
		}
		if ( is_post_type_archive() ) {
			$type = get_query_var( 'post_type' );
			return 'archive ' . ( is_array( $type ) ? reset( $type ) : $type );
		}
		foreach ( array( 'category', 'tag', 'author', 'date', 'archive' ) as $class ) {
			$condition = 'is_' . $class;
			if ( $condition() ) {
				return $class;
			}
		}
		return 'other';
	}

	/**
	 * Return the name of the dashboard's page.
	 *
	 * @return string
	 */
	private static function admin_page() {
		global $pagenow, $plugin_page;
		$page = is_string( $pagenow ) ? $pagenow : '';
		// WordPress creates a screen only for an existing page.
		if ( ! isset( $plugin_page, $GLOBALS['current_screen'] ) ) {
			return $page;
		}
		return $page . ' ' . substr( (string) preg_replace( '#[^\w./-]++#', '', $plugin_page ), 0, self::MAX_DETAIL );
	}

	/**
	 * Return a parameter if there is a hook with that name, because clients can send any value.
	 *
	 * @param string   $parameter Name of the parameter.
	 * @param string[] $prefixes  Of the hooks.
	 * @return string
	 */
	private static function known_hook( $parameter, array $prefixes ) {
		$value = self::parameter( $parameter );
		foreach ( $prefixes as $prefix ) {
			if ( '' !== $value && has_action( $prefix . $value ) ) {
				return $value;
			}
		}
		return '';
	}

	/**
	 * Return a parameter of the request. It is used in a span name only after a comparison with existing names.
	 *
	 * @param string $name Name of the parameter.
	 * @return string
	 */
	private static function parameter( $name ) {
		// phpcs:ignore WordPress.Security.NonceVerification -- it changes nothing.
		return isset( $_REQUEST[ $name ] ) && is_string( $_REQUEST[ $name ] ) ? sanitize_text_field( wp_unslash( $_REQUEST[ $name ] ) ) : '';
	}

	/**
	 * Return the command that WP-CLI runs, without its arguments.
	 *
	 * @return string
	 */
	private static function command() {
		if ( ! class_exists( '\WP_CLI', false ) || ! is_callable( array( '\WP_CLI', 'get_runner' ) ) ) {
			return '';
		}
		$runner = \WP_CLI::get_runner();
		$found  = is_callable( array( $runner, 'find_command_to_run' ) ) ? $runner->find_command_to_run( (array) $runner->arguments ) : '';
		return is_array( $found ) && isset( $found[2] ) ? implode( ' ', (array) $found[2] ) : '';
	}
}
