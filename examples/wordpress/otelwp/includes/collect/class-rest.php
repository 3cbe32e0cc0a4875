<?php
/**
 * REST requests.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Route;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Records spans of REST requests, including those that WordPress makes to itself within a page.
 */
final class Rest {

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * Spans of requests, the innermost last, each with a flag whether its route is known.
	 *
	 * @var array[]
	 */
	private $requests = array();

	/**
	 * Register the hooks; `begin` is registered by the creator.
	 *
	 * @param Trace $trace The trace for the spans.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
		add_filter( 'rest_dispatch_request', array( $this, 'route' ), PHP_INT_MIN, 3 );
		add_filter( 'rest_request_after_callbacks', array( $this, 'end' ), PHP_INT_MAX, 3 );
	}

	/**
	 * Start a span for a REST request with a known route.
	 *
	 * @param mixed            $response Answer of a plugin, or null.
	 * @param array            $handler  Of the route.
	 * @param \WP_REST_Request $request  The request.
	 * @return mixed
	 */
	public function begin( $response, $handler, $request ) {
		$this->requests[] = array( $this->trace->open( 'rest', Trace::INTERNAL, array( 'http.request.method' => $request->get_method() ) ), false );
		return $response;
	}

	/**
	 * Record the route. This hook runs after the permission check.
	 *
	 * @param mixed            $result  Answer of a plugin, or null.
	 * @param \WP_REST_Request $request The request.
	 * @param string           $route   A regular expression.
	 * @return mixed
	 */
	public function route( $result, $request, $route ) {
		$this->name( (string) $route, $request );
		return $result;
	}

	/**
	 * End the span of a REST request.
	 *
	 * @param mixed            $response The answer.
	 * @param array            $handler  Of the route.
	 * @param \WP_REST_Request $request  The request.
	 * @return mixed
	 */
	public function end( $response, $handler, $request ) {
		if ( ! $this->requests ) {
			return $response;
		}
		if ( ! end( $this->requests )[1] ) {
			$this->name( self::find_route( $request ), $request );
		}
		list( $span ) = array_pop( $this->requests );
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
	private function name( $pattern, $request ) {
		$route = self::readable( $pattern );
		Route::note( $route );
		if ( $this->requests ) {
			list( $span )                        = end( $this->requests );
			$this->requests[ key( $this->requests ) ][1] = true;
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
}
