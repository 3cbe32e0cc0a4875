<?php
/**
 * The request that is being answered.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Decides whether this request is recorded, has it recorded, and sends it when everything else is done.
 */
final class Request {

	/**
	 * This request, if it is recorded.
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
	 * The sampling threshold that it passed; null if somebody else decided.
	 *
	 * @var string|null
	 */
	private $threshold;

	/**
	 * What writes to the trace when the request is over.
	 *
	 * @var object[]
	 */
	private $collectors = array();

	/**
	 * Collectors that were needed, by class.
	 *
	 * @var object[]
	 */
	private $late = array();

	/**
	 * Start recording, if this request is to be recorded.
	 */
	public static function begin() {
		if ( ! Settings::get( 'enabled' ) || Agent::wish( 'paused' ) || wp_installing() ) {
			return;
		}
		if ( ! Settings::are_stored() ) {
			add_action( 'wp_loaded', array( Plugin::class, 'prepare_site' ), PHP_INT_MAX, 0 ); // Each page would look for them.
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
		// Before other plugins work in `shutdown`, and again at the end.
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
	 * Return what ended the request as the attributes of an event, or null. Most requests end well, and load no file for it.
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
	 * Open the request's span, at the time that PHP began.
	 *
	 * @param Trace_Context $context   Who called.
	 * @param string|null   $threshold That it passed.
	 */
	private function __construct( Trace_Context $context, $threshold ) {
		$this->threshold = $threshold;
		$this->trace     = new Trace( $context, (int) Settings::get( 'max_spans' ) );
		$began           = isset( $_SERVER['REQUEST_TIME_FLOAT'] ) ? (float) $_SERVER['REQUEST_TIME_FLOAT'] : microtime( true );
		$kind            = self::is_http() ? Trace::SERVER : Trace::INTERNAL;
		$this->root      = $this->trace->open( 'request', $kind, array(), Trace::nanoseconds( $began ) );
	}

	/**
	 * Watch everything that a page is made of.
	 */
	private function record() {
		$this->collectors = array(
			new Collect\Phases( $this->trace, $this->root ),
			new Collect\Database( $this->trace, $this->root ),
		);
		// What many pages have nothing of is loaded when it is there.
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
		// After WordPress's own shutdown function and whatever plugins do in the action `shutdown`.
		register_shutdown_function( array( $this, 'end' ) );
	}

	/**
	 * Let a collector have what a hook passes, as soon as it does.
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
	 * Make a collector.
	 *
	 * @param string $name Its class.
	 * @return object
	 */
	private function make( $name ) {
		switch ( $name ) {
			case Collect\Http::class:
				return new $name( $this->trace, $this->trace->context, $this->threshold );
			case Collect\Errors::class:
				return new $name( $this->trace, $this->root );
			default:
				return new $name( $this->trace );
		}
	}

	/**
	 * Send the trace. The answer has been written by now, and is on its way if the server can let it go.
	 */
	public function end() {
		try {
			$this->send();
		} catch ( \Throwable $error ) {
			// Whatever is wrong with a trace must not be wrong with the page.
			if ( defined( 'WP_DEBUG' ) && WP_DEBUG ) {
				error_log( 'OTelWP: ' . Redact::error( $error ) ); // phpcs:ignore WordPress.PHP.DevelopmentFunctions
			}
		}
	}

	/**
	 * Complete the trace, encode it, hand it over.
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
		/**
		 * Fires after a trace was sent or lost.
		 *
		 * @param string $endpoint    Which took it; '' if none did.
		 * @param int    $size        Bytes.
		 * @param int    $sending     Nanoseconds that sending took.
		 * @param int    $preparing   Nanoseconds that preparing took.
		 * @param Trace  $trace       What was sent.
		 */
		do_action( 'otelwp_sent', $endpoint, strlen( $body ), hrtime( true ) - $encoded, $encoded - $began, $this->trace );
	}

	/**
	 * Write what is known of the request only at its end.
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
		}
		if ( $this->trace->dropped ) {
			$attr['otelwp.dropped_spans'] = $this->trace->dropped;
		}
		$attr['php.memory.peak'] = memory_get_peak_usage();
		$this->trace->set( $this->root, $attr );
		$this->trace->rename( $this->root, Route::name() );
	}

	/**
	 * Tell whether somebody asked over HTTP.
	 *
	 * @return bool
	 */
	public static function is_http() {
		return 'cli' !== PHP_SAPI && 'phpdbg' !== PHP_SAPI;
	}

	/**
	 * Return a string that the server or the client set. It is never printed, and its bytes are mended when encoded.
	 *
	 * @param string $name Like HTTP_HOST.
	 * @return string
	 */
	public static function server( $name ) {
		// phpcs:ignore WordPress.Security.ValidatedSanitizedInput -- each user of it takes apart what it needs.
		return isset( $_SERVER[ $name ] ) && is_string( $_SERVER[ $name ] ) ? wp_unslash( $_SERVER[ $name ] ) : '';
	}
}
