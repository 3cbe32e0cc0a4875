<?php
/**
 * Work that WordPress does within a phase.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Route;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * REST routes, cron hooks, XML-RPC methods, template parts and mail.
 */
final class Work {

	const SHORTEST_PART = 1000000; // Nanoseconds. Parts of templates that load faster are no spans.

	/**
	 * Where spans go.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * Spans of REST requests, the innermost last, each with whether its route is known.
	 *
	 * @var array[]
	 */
	private $rest = array();

	/**
	 * Times at which templates began to load, the innermost last.
	 *
	 * @var int[]
	 */
	private $parts = array();

	/**
	 * The span of a mail that is being sent.
	 *
	 * @var int
	 */
	private $mail = Trace::NONE;

	/**
	 * Watch.
	 *
	 * @param Trace $trace Where spans go.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
		add_filter( 'rest_request_before_callbacks', array( $this, 'rest_begin' ), PHP_INT_MIN, 3 );
		add_filter( 'rest_dispatch_request', array( $this, 'rest_route' ), PHP_INT_MIN, 3 );
		add_filter( 'rest_request_after_callbacks', array( $this, 'rest_end' ), PHP_INT_MAX, 3 );
		add_action( 'wp_loaded', array( $this, 'cron' ), PHP_INT_MAX, 0 );
		add_action( 'xmlrpc_call', array( Route::class, 'note' ), 1, 1 );
		add_action( 'wp_before_load_template', array( $this, 'part_begin' ), PHP_INT_MIN, 0 );
		add_action( 'wp_after_load_template', array( $this, 'part_end' ), PHP_INT_MAX, 1 );
		add_filter( 'wp_mail', array( $this, 'mail_begin' ), PHP_INT_MAX );
		add_filter( 'pre_wp_mail', array( $this, 'mail_taken' ), PHP_INT_MAX );
		add_action( 'wp_mail_succeeded', array( $this, 'mail_end' ), PHP_INT_MIN, 0 );
		add_action( 'wp_mail_failed', array( $this, 'mail_failed' ), PHP_INT_MIN );
	}

	/**
	 * Begin a span for a REST request whose route was found.
	 *
	 * @param mixed            $response What a plugin answered, or null.
	 * @param array            $handler  Of the route.
	 * @param \WP_REST_Request $request  The request.
	 * @return mixed
	 */
	public function rest_begin( $response, $handler, $request ) {
		$this->rest[] = array( $this->trace->open( 'rest', Trace::INTERNAL, array( 'http.request.method' => $request->get_method() ) ), false );
		return $response;
	}

	/**
	 * Learn the route. It is asked after the permission.
	 *
	 * @param mixed            $result  What a plugin answered, or null.
	 * @param \WP_REST_Request $request The request.
	 * @param string           $route   A regular expression.
	 * @return mixed
	 */
	public function rest_route( $result, $request, $route ) {
		$this->name_rest( (string) $route, $request );
		return $result;
	}

	/**
	 * End the span of a REST request.
	 *
	 * @param mixed            $response What is answered.
	 * @param array            $handler  Of the route.
	 * @param \WP_REST_Request $request  The request.
	 * @return mixed
	 */
	public function rest_end( $response, $handler, $request ) {
		if ( ! $this->rest ) {
			return $response;
		}
		if ( ! end( $this->rest )[1] ) {
			$this->name_rest( self::find_route( $request ), $request );
		}
		list( $span ) = array_pop( $this->rest );
		$attributes   = array();
		if ( is_wp_error( $response ) ) {
			$attributes['error.type'] = (string) $response->get_error_code();
			$data                     = $response->get_error_data();
			if ( ! isset( $data['status'] ) || $data['status'] >= 500 ) {
				$this->trace->fail( $span, Redact::text( $response->get_error_message() ) );
			}
		}
		$this->trace->close( $span, $attributes );
		return $response;
	}

	/**
	 * Name the innermost REST span, and the request if it is the first.
	 *
	 * @param string           $pattern A regular expression.
	 * @param \WP_REST_Request $request The request.
	 */
	private function name_rest( $pattern, $request ) {
		$route = self::readable( $pattern );
		Route::note( $route );
		if ( $this->rest ) {
			list( $span )                        = end( $this->rest );
			$this->rest[ key( $this->rest ) ][1] = true;
			$this->trace->rename( $span, trim( $request->get_method() . ' rest ' . $route ) );
			$this->trace->set( $span, array( 'http.route' => $route ) );
		}
	}

	/**
	 * Return the pattern that a path matches; '' if none does.
	 *
	 * @param \WP_REST_Request $request The request.
	 * @return string
	 */
	private static function find_route( $request ) {
		foreach ( array_keys( rest_get_server()->get_routes() ) as $pattern ) {
			if ( preg_match( '@^' . $pattern . '$@i', $request->get_route() ) ) {
				return $pattern;
			}
		}
		return '';
	}

	/**
	 * Turn `/wp/v2/posts/(?P<id>[\d]+)` into `/wp/v2/posts/{id}`.
	 *
	 * @param string $pattern Of a route.
	 * @return string
	 */
	public static function readable( $pattern ) {
		return (string) preg_replace( array( '/\(\?P?<(\w+)>(?:[^()\\\\]++|\\\\.|(\((?:[^()\\\\]++|\\\\.|(?2))*+\)))*+\)/', '/[()?]|\\\\/' ), array( '{$1}', '' ), $pattern );
	}

	/**
	 * Surround the hooks that this cron run is about to call.
	 */
	public function cron() {
		if ( ! wp_doing_cron() ) {
			return;
		}
		$hooks = array();
		foreach ( wp_get_ready_cron_jobs() as $jobs ) {
			$hooks += $jobs;
		}
		foreach ( array_slice( array_keys( $hooks ), 0, 100 ) as $hook ) {
			$span = Trace::NONE;
			add_action(
				$hook,
				function () use ( $hook, &$span ) {
					$span = $this->trace->open( 'cron ' . $hook, Trace::INTERNAL, array( 'wordpress.cron.hook' => (string) $hook ) );
				},
				PHP_INT_MIN,
				0
			);
			add_action(
				$hook,
				function () use ( &$span ) {
					$this->trace->close( $span );
				},
				PHP_INT_MAX,
				0
			);
			unset( $span ); // Each hook has its own.
		}
	}

	/**
	 * A template is about to be loaded.
	 */
	public function part_begin() {
		$this->parts[] = $this->trace->now();
	}

	/**
	 * A template was loaded.
	 *
	 * @param string $file Its path.
	 */
	public function part_end( $file ) {
		$now   = $this->trace->now();
		$start = array_pop( $this->parts );
		if ( null !== $start && $now - $start >= self::SHORTEST_PART ) {
			$path = Redact::path( (string) $file );
			$this->trace->add( 'template ' . basename( $path ), Trace::INTERNAL, $start, $now, array( 'code.file.path' => $path ) );
		}
	}

	/**
	 * A mail is about to be sent. To whom is nobody's business.
	 *
	 * @param array $mail The mail.
	 * @return array
	 */
	public function mail_begin( $mail ) {
		$this->mail = $this->trace->open( 'wp_mail' );
		return $mail;
	}

	/**
	 * A plugin may have taken the mail.
	 *
	 * @param bool|null $taken Null if none has.
	 * @return bool|null
	 */
	public function mail_taken( $taken ) {
		if ( null !== $taken ) {
			$this->mail_end();
		}
		return $taken;
	}

	/**
	 * The mail was handed over.
	 */
	public function mail_end() {
		$this->trace->close( $this->mail );
	}

	/**
	 * The mail was not handed over.
	 *
	 * @param \WP_Error $error Why.
	 */
	public function mail_failed( $error ) {
		$this->trace->fail( $this->mail, Redact::text( $error->get_error_message() ) );
		$this->trace->close( $this->mail, array( 'error.type' => (string) $error->get_error_code() ) );
	}
}
