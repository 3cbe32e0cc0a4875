<?php
/**
 * The current request.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Decides whether this request is recorded, records it, and sends its trace at the very end.
 */
final class Request {

	/**
	 * The current request, null if it is not recorded.
	 *
	 * @var self|null
	 */
	private static $current = null;

	/**
	 * Its spans.
	 *
	 * @var Trace
	 */
	public $trace;

	/**
	 * The span of the request itself.
	 *
	 * @var int
	 */
	public $root;

	/**
	 * The sampling threshold that it passed; null if another service decided.
	 *
	 * @var string|null
	 */
	private $threshold;

	/**
	 * What each plugin used; null if only an error is recorded.
	 *
	 * @var Collect\Usage|null
	 */
	private $usage = null;

	/**
	 * Collectors that write to the trace at the end of the request.
	 *
	 * @var object[]
	 */
	private $collectors = array();

	/**
	 * Collectors that were created when first needed, by class.
	 *
	 * @var object[]
	 */
	private $late = array();

	/**
	 * Start recording, if this request is sampled.
	 */
	public static function begin() {
		if ( ! Settings::get( 'enabled' ) || Agent::is_paused() || wp_installing() ) {
			return;
		}
		if ( ! Settings::are_stored() ) {
			add_action( 'wp_loaded', array( Plugin::class, 'prepare_site' ), PHP_INT_MAX, 0 ); // Otherwise each page would query the database for them.
		}
		$context = Trace_Context::of_request( self::server( 'HTTP_TRACEPARENT' ), self::server( 'HTTP_TRACESTATE' ), self::server( 'REMOTE_ADDR' ), (array) Settings::get( 'trusted_proxies' ) );
		if ( Settings::get( 'follow_parent' ) && null !== $context->sampled ) {
			$sampled   = $context->sampled;
			$threshold = isset( $context->ot['th'] ) ? $context->ot['th'] : null;
		} else {
			$threshold = Sampler::threshold( Agent::sampling_rate() );
			$sampled   = Sampler::keeps( $context->trace_id, $threshold, isset( $context->ot['rv'] ) ? $context->ot['rv'] : '' );
		}
		if ( $sampled ) {
			$sampled = Sampler::within_budget( (float) Agent::wish( 'traces_per_second' ) );
		}
		// Check before other plugins run in `shutdown`, and again at the end.
		add_action( 'shutdown', array( __CLASS__, 'fatal' ), PHP_INT_MIN, 0 );
		if ( $sampled ) {
			self::$current = new self( $context, $threshold );
			self::$current->record();
			return;
		}
		add_filter(
			'http_request_args',
			static function ( $args, $url ) use ( $context, $threshold ) {
				return ( new Collect\Http( null, $context, $threshold ) )->begin( $args, $url );
			},
			PHP_INT_MAX,
			2
		);
		if ( Settings::get( 'keep_errors' ) ) {
			register_shutdown_function(
				static function () use ( $context ) {
					if ( null !== self::fatal() || http_response_code() >= 500 ) {
						$request = new self( $context, null );
						$request->trace->set( $request->root, array( 'otelwp.kept_because' => 'error' ) );
						$request->end();
					}
				}
			);
		}
	}

	/**
	 * Return the error that ended the request as attributes of an event, or null. Most requests end without error, and
	 * load no file for it.
	 *
	 * @return array|null
	 */
	public static function fatal() {
		static $failed = false;
		$failed = $failed || null !== error_get_last();
		return $failed ? Collect\Errors::fatal() : null;
	}

	/**
	 * Return the request, if it is recorded.
	 *
	 * @return self|null
	 */
	public static function current() {
		return self::$current;
	}

	/**
	 * Open the request's span with the start time of PHP.
	 *
	 * @param Trace_Context $context   Context of the caller.
	 * @param string|null   $threshold The threshold that it passed.
	 */
	private function __construct( Trace_Context $context, $threshold ) {
		$this->threshold = $threshold;
		$this->trace     = new Trace( $context, (int) Settings::get( 'max_spans' ) );
		$began           = isset( $_SERVER['REQUEST_TIME_FLOAT'] ) ? (float) $_SERVER['REQUEST_TIME_FLOAT'] : microtime( true );
		$kind            = self::is_http() ? Trace::SERVER : Trace::INTERNAL;
		$this->root      = $this->trace->open( 'request', $kind, array(), Trace::nanoseconds( $began ) );
	}

	/**
	 * Create the collectors that record this request.
	 */
	private function record() {
		$this->usage      = new Collect\Usage( $this->trace, $this->root );
		$this->collectors = array(
			new Collect\Phases( $this->trace, $this->root ),
			new Collect\Database( $this->trace, $this->root, $this->usage ),
		);
		if ( Settings::get( 'profile_rate' ) > 0 && ! Agent::toggle( 'rate_limit' ) && Collect\Profile::wanted() ) {
			$this->collectors[] = new Collect\Profile( $this->trace, $this->root, $this->usage );
		}
		// Collectors that many pages do not need are loaded when they are needed.
		$this->wait( 'http_request_args', Collect\Http::class, 'begin', PHP_INT_MAX, 2 );
		$this->wait( 'rest_request_before_callbacks', Collect\Rest::class, 'begin', PHP_INT_MIN, 3 );
		$this->wait( 'wp_before_load_template', Collect\Templates::class, 'begin', PHP_INT_MIN, 0 );
		$this->wait( 'wp_mail', Collect\Mail::class, 'begin', PHP_INT_MAX, 1 );
		$this->wait( 'woocommerce_loaded', Collect\Woocommerce::class, 'watch', 10, 0 );
		foreach ( array( '', '_ajax', '_json', '_jsonp', '_xmlrpc', '_xml' ) as $kind ) {
			$this->wait( 'wp_die' . $kind . '_handler', Collect\Errors::class, 'wrap', PHP_INT_MAX, 1 );
		}
		if ( defined( 'XMLRPC_REQUEST' ) ) {
			add_action( 'xmlrpc_call', array( Route::class, 'note' ), 1, 1 );
		}
		if ( wp_doing_cron() ) {
			$this->wait( 'wp_loaded', Collect\Cron::class, 'surround', PHP_INT_MAX, 0 );
		}
		// After WordPress's own shutdown function and the plugins' `shutdown` actions.
		register_shutdown_function( array( $this, 'end' ) );
	}

	/**
	 * Pass the values of a hook to a collector, which is created when the hook first runs.
	 *
	 * @param string $hook     Its name.
	 * @param string $name     Class of the collector.
	 * @param string $method   Of the collector.
	 * @param int    $priority Of the hook.
	 * @param int    $count    Of arguments.
	 */
	private function wait( $hook, $name, $method, $priority, $count ) {
		add_filter(
			$hook,
			function ( ...$values ) use ( $name, $method ) {
				if ( ! isset( $this->late[ $name ] ) ) {
					$this->late[ $name ] = $this->make( $name );
				}
				return $this->late[ $name ]->$method( ...$values );
			},
			$priority,
			$count
		);
	}

	/**
	 * Create a collector.
	 *
	 * @param string $name Its class.
	 * @return object
	 */
	private function make( $name ) {
		switch ( $name ) {
			case Collect\Http::class:
				return new $name( $this->trace, $this->trace->context, $this->threshold, $this->usage );
			case Collect\Errors::class:
				return new $name( $this->trace, $this->root, $this->usage );
			case Collect\Mail::class:
				return new $name( $this->trace, $this->usage );
			default:
				return new $name( $this->trace );
		}
	}

	/**
	 * Send the trace. The response has been written by now, and has been sent if the server supports that.
	 */
	public function end() {
		try {
			$this->send();
		} catch ( \Throwable $error ) {
			// An error in the plugin must not affect the page.
			if ( defined( 'WP_DEBUG' ) && WP_DEBUG ) {
				error_log( 'OTelWP: ' . Redact::error( $error ) ); // phpcs:ignore WordPress.PHP.DevelopmentFunctions
			}
		}
	}

	/**
	 * Complete the trace, encode it, send it.
	 */
	private function send() {
		if ( Settings::get( 'finish_request' ) ) {
			foreach ( array( 'fastcgi_finish_request', 'litespeed_finish_request' ) as $finish ) {
				if ( function_exists( $finish ) ) {
					$finish();
				}
			}
		}
		$began = hrtime( true );
		foreach ( $this->collectors as $collector ) {
			$collector->finish();
		}
		$this->describe();
		$this->trace->complete();
		/**
		 * Fires before a trace is sent: the last moment to change or add something.
		 *
		 * @param Trace $trace Its spans.
		 * @param int   $root  The number of the request's span.
		 */
		do_action( 'otelwp_trace', $this->trace, $this->root );
		$body     = Otlp::encode( $this->trace, Site::resource(), $this->trace->context->tracestate( $this->threshold ) );
		$encoded  = hrtime( true );
		$sender   = new Sender( (array) Settings::get( 'endpoints' ), new Breaker() );
		$endpoint = '' === $body ? '' : $sender->send( $body );
		if ( '' !== $endpoint ) {
			Sender::remember( $endpoint, count( $this->trace->spans ) );
		}
		/**
		 * Fires after a trace was sent or lost.
		 *
		 * @param string $endpoint    Which took it; '' if none did.
		 * @param int    $size        Bytes.
		 * @param int    $sending     Nanoseconds that sending took.
		 * @param int    $preparing   Nanoseconds that preparing took.
		 * @param Trace  $trace       What was sent.
		 * @param array  $problems    Why endpoints did not accept it, by endpoint.
		 */
		do_action( 'otelwp_sent', $endpoint, strlen( $body ), hrtime( true ) - $encoded, $encoded - $began, $this->trace, $sender->problems );
	}

	/**
	 * Add attributes that are known only at the end of the request.
	 */
	private function describe() {
		$status = http_response_code();
		$attr   = Route::attributes();
		if ( is_int( $status ) && self::is_http() ) {
			$attr['http.response.status_code'] = $status;
			if ( $status >= 500 ) {
				$attr['error.type'] = (string) $status;
				if ( null === $this->trace->spans[ $this->root ][ Trace::ERROR ] ) {
					$this->trace->fail( $this->root );
				}
			}
		}
		$fatal = self::fatal();
		if ( null !== $fatal ) {
			$attr['error.type'] = $fatal['exception.type'];
			$this->trace->event( $this->root, 'exception', $fatal );
			$this->trace->fail( $this->root, $fatal['exception.message'] );
			if ( null !== $this->usage ) {
				$this->usage->add( $fatal, 'errors', 1 );
			}
		}
		if ( $this->trace->dropped ) {
			$attr['otelwp.dropped_spans'] = $this->trace->dropped;
		}
		$attr['php.memory.peak'] = memory_get_peak_usage();
		if ( null !== $this->usage ) {
			$this->usage->finish();
		}
		$this->trace->set( $this->root, $attr );
		$this->trace->rename( $this->root, Route::name() );
	}

	/**
	 * Return whether this is an HTTP request.
	 *
	 * @return bool
	 */
	public static function is_http() {
		return 'cli' !== PHP_SAPI && 'phpdbg' !== PHP_SAPI;
	}

	/**
	 * Return a string from the server or the client. It is never printed, and invalid bytes are replaced when it is
	 * encoded.
	 *
	 * @param string $name Like HTTP_HOST.
	 * @return string
	 */
	public static function server( $name ) {
		// phpcs:ignore WordPress.Security.ValidatedSanitizedInput -- each caller parses what it needs.
		return isset( $_SERVER[ $name ] ) && is_string( $_SERVER[ $name ] ) ? wp_unslash( $_SERVER[ $name ] ) : '';
	}
}
