<?php
/**
 * An endpoint of traces.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * An address of the agent. It writes one message and never waits for an answer.
 *
 * It uses sockets rather than WP_Http because of the time that a page would lose: `blocking => false` waits for the
 * whole answer with cURL (at least 1.4 ms, one second if the agent hangs), and does not support unix sockets. A
 * non-blocking socket takes 0.02 to 0.15 ms in every state of the agent: a missing listener, a full queue and a peer
 * that never reads are all detected immediately.
 */
final class Endpoint {

	const CONNECT_SECONDS = 0.05; // For agents on another host; on this host connecting succeeds or fails immediately.

	const MAX_DATAGRAM = array(
		'udg' => 200000, // Linux: what SO_SNDBUF of 212 992 bytes leaves.
		'udp' => 65507,
	);

	const TOO_LARGE = 'too large'; // The message is the problem.

	const BUSY = 'its queue is full'; // Temporary: the next message may be accepted.

	/**
	 * The endpoint as in the settings.
	 *
	 * @var string
	 */
	public $text;

	/**
	 * PHP's transport: udg, udp, unix, tcp.
	 *
	 * @var string
	 */
	public $transport;

	/**
	 * A path, or host:port.
	 *
	 * @var string
	 */
	public $address;

	/**
	 * Path of the HTTP request.
	 *
	 * @var string
	 */
	public $path = '/v1/traces';

	/**
	 * Whether a constant in wp-config.php contains it: then it may be on another host.
	 *
	 * @var bool
	 */
	public $fixed;

	/**
	 * Parse an endpoint; return null if it is invalid.
	 *
	 * @param string $text  `unixgram:///path`, `unix:///path`, `udp://host:port`, `http://host:port[/path]`.
	 * @param bool   $fixed Whether a constant in wp-config.php contains it.
	 * @return self|null
	 */
	public static function parse( $text, $fixed = false ) {
		$endpoint        = new self();
		$endpoint->text  = $text;
		$endpoint->fixed = $fixed;
		if ( false !== strpbrk( $text, '?#' ) ) {
			return null;
		}
		if ( preg_match( '#^(unix|unixgram)://(/[!-~]{1,106})$#D', $text, $found ) ) { // sun_path has 108 bytes.
			$endpoint->transport = 'unix' === $found[1] ? 'unix' : 'udg';
			$endpoint->address   = $found[2];
			return $endpoint;
		}
		if ( ! preg_match( '#^(udp|http)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?(/[!-~]*)?$#D', $text, $found ) ) {
			return null;
		}
		$port = isset( $found[3] ) && '' !== $found[3] ? (int) $found[3] : ( 'http' === $found[1] ? 4318 : 0 );
		if ( $port < 1 || $port > 65535 ) {
			return null;
		}
		$endpoint->transport = 'http' === $found[1] ? 'tcp' : 'udp';
		$endpoint->address   = ( Destination::is_localhost( $found[2] ) ? '127.0.0.1' : $found[2] ) . ':' . $port;
		if ( isset( $found[4] ) && '/' !== $found[4] ) {
			$endpoint->path = $found[4];
		}
		return $endpoint;
	}

	/**
	 * Return whether the socket exists, at almost no cost. Always true for a host and port.
	 *
	 * @return bool
	 */
	public function exists() {
		return '/' !== $this->address[0] || file_exists( $this->address );
	}

	/**
	 * Return why data must not be sent to it.
	 *
	 * @return string '' if it may, else as Destination::refusal() returns it.
	 */
	public function refusal() {
		return Destination::refusal( $this->text, $this->fixed );
	}

	/**
	 * Write a message to the kernel.
	 *
	 * @param string $body The OTLP.
	 * @return string '' if it was accepted, else the reason. TOO_LARGE and BUSY apply only to this message.
	 */
	public function deliver( $body ) {
		$refusal = $this->refusal();
		if ( '' !== $refusal ) {
			return $refusal;
		}
		$datagram = isset( self::MAX_DATAGRAM[ $this->transport ] );
		if ( $datagram && strlen( $body ) > self::MAX_DATAGRAM[ $this->transport ] ) {
			return self::TOO_LARGE;
		}
		return $this->exchange( $datagram ? $body : $this->http( $body ) );
	}

	/**
	 * Check whether a process listens, without sending data. (For UDP this is unknown.)
	 *
	 * @return string '' if one does, else the reason.
	 */
	public function probe() {
		$refusal = $this->refusal();
		return '' === $refusal ? $this->exchange( '' ) : $refusal;
	}

	/**
	 * Connect, write and close, and capture PHP's warnings.
	 *
	 * @param string $message The bytes to send.
	 * @return string '' if it was accepted, else the reason.
	 */
	private function exchange( $message ) {
		// An own handler hides PHP's warnings from other handlers, and keeps error_get_last() unchanged.
		$problem = '';
		set_error_handler( // phpcs:ignore WordPress.PHP.DevelopmentFunctions.error_log_set_error_handler
			static function ( $level, $message ) use ( &$problem ) {
				$problem = $message;
				return true;
			}
		);
		try {
			return $this->write( $message, $problem );
		} finally {
			restore_error_handler();
		}
	}

	/**
	 * Connect, write and close.
	 *
	 * @param string $message The bytes to send.
	 * @param string $problem PHP's warning.
	 * @return string
	 */
	private function write( $message, &$problem ) {
		// phpcs:disable WordPress.WP.AlternativeFunctions -- these are sockets, not files.
		$socket = stream_socket_client( $this->transport . '://' . $this->address, $code, $error, self::CONNECT_SECONDS, STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT );
		if ( ! $socket ) {
			return self::why( '' === (string) $error ? $problem : $error );
		}
		stream_set_blocking( $socket, false );
		if ( 'tcp' === $this->transport && ! $this->is_loopback() ) {
			$read   = null;
			$ready  = array( $socket );
			$except = null;
			if ( ! stream_select( $read, $ready, $except, 0, (int) ( self::CONNECT_SECONDS * 1e6 ) ) ) {
				fclose( $socket );
				return 'connecting takes too long';
			}
		}
		$refusal = $this->is_named() ? Destination::peer_refusal( $socket ) : '';
		if ( '' !== $refusal ) {
			fclose( $socket );
			return $refusal;
		}
		if ( '' === $message && false === stream_socket_get_name( $socket, true ) ) {
			$problem = 'connection refused'; // TCP reports it at the first write, which a probe does not do.
			$written = false;
		} else {
			$written = '' === $message ? 0 : fwrite( $socket, $message );
		}
		fclose( $socket );
		// phpcs:enable
		if ( strlen( $message ) === $written ) {
			return '';
		}
		if ( false === $written ) {
			return self::why( $problem );
		}
		return $written ? self::TOO_LARGE : self::BUSY; // Part of it fits in no buffer: the written bytes are lost.
	}

	/**
	 * Return whether the peer is on this host, where connecting needs no waiting.
	 *
	 * @return bool
	 */
	private function is_loopback() {
		return 0 === strpos( $this->address, '127.' ) || 0 === strpos( $this->address, '[::1]' );
	}

	/**
	 * Return whether the host is a name, which may resolve to any address.
	 *
	 * @return bool
	 */
	private function is_named() {
		return '/' !== $this->address[0] && null === Address::parse( substr( $this->address, 0, (int) strrpos( $this->address, ':' ) ) );
	}

	/**
	 * Return an HTTP request with a body.
	 *
	 * @param string $body The OTLP.
	 * @return string
	 */
	private function http( $body ) {
		$host = '/' === $this->address[0] ? 'localhost' : $this->address;
		return 'POST ' . $this->path . " HTTP/1.1\r\nHost: " . $host . "\r\nUser-Agent: otelwp/" . OTELWP_VERSION
			. "\r\nContent-Type: application/x-protobuf\r\nContent-Length: " . strlen( $body ) . "\r\nConnection: close\r\n\r\n" . $body;
	}

	/**
	 * Shorten PHP's warning to the error of the system.
	 *
	 * @param string $problem Like `fwrite(): Send of 10 bytes failed with errno=111 Connection refused`.
	 * @return string
	 */
	private static function why( $problem ) {
		$words = strtolower( preg_replace( '/^.*errno=\d+ /', '', $problem ) );
		return false === strpos( $words, 'temporarily unavailable' ) ? $words : self::BUSY; // EAGAIN.
	}
}
