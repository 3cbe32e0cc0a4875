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
	 * Start recording, if this request is to be recorded.
	 */
	public static function begin() {
		if ( ! Settings::get( 'enabled' ) || Agent::wish( 'paused' ) || wp_installing() ) {
			return;
		}
		$context = Trace_Context::from_headers( self::server( 'HTTP_TRACEPARENT' ), self::server( 'HTTP_TRACESTATE' ) );
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
		add_action( 'shutdown', array( Collect\Errors::class, 'fatal' ), PHP_INT_MIN, 0 );
		if ( $sampled ) {
			self::$current = new self( $context, $threshold );
			self::$current->record();
			return;
		}
		new Collect\Http( null, $context, $threshold );
		if ( Settings::get( 'keep_errors' ) ) {
			register_shutdown_function(
				static function () use ( $context ) {
					if ( null !== Collect\Errors::fatal() || http_response_code() >= 500 ) {
						$request = new self( $context, null );
						$request->trace->set( $request->root, array( 'otelwp.kept_because' => 'error' ) );
						$request->end();
					}
				}
			);
		}
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
			new Collect\Http( $this->trace, $this->trace->context, $this->threshold ),
			new Collect\Work( $this->trace ),
			new Collect\Errors( $this->trace, $this->root ),
			new Collect\Woocommerce( $this->trace ),
		);
		// After WordPress's own shutdown function and whatever plugins do in the action `shutdown`.
		register_shutdown_function( array( $this, 'end' ) );
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
				error_log( 'OTelWP: ' . $error ); // phpcs:ignore WordPress.PHP.DevelopmentFunctions
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
			if ( method_exists( $collector, 'finish' ) ) {
				$collector->finish();
			}
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
		$body     = Otlp_Json::encode( $this->trace, Site::resource(), $this->trace->context->tracestate( $this->threshold ) );
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
		$fatal = Collect\Errors::fatal();
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
