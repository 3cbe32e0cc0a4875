<?php
/**
 * Where traces go.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * One way to the agent. It writes one message and never waits for an answer.
 *
 * Sockets are opened here rather than through WP_Http because of what a page would pay: `blocking => false` waits for
 * the whole answer with cURL (1.4 ms at best, one second beside an agent that hangs), and knows no unix socket. A raw
 * socket that does not block costs 0.02 to 0.15 ms in every state of the agent: nothing there, a full queue and a peer
 * that never reads are all told at once.
 */
final class Endpoint {

	const CONNECT_SECONDS = 0.05; // For agents on another host; on this one, connecting succeeds or fails at once.

	const MAX_DATAGRAM = array(
		'udg' => 200000, // Linux: what SO_SNDBUF of 212 992 bytes leaves.
		'udp' => 65507,
	);

	const TOO_LARGE = 'too large'; // The message is at fault.

	const BUSY = 'its queue is full'; // The moment is: the next message may be taken.

	/**
	 * As it was written in the settings.
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
	 * Whether a constant in wp-config.php names it: then it may be on another host.
	 *
	 * @var bool
	 */
	public $fixed;

	/**
	 * Read an endpoint; null if it is none.
	 *
	 * @param string $text  `unixgram:///path`, `unix:///path`, `udp://host:port`, `http://host:port[/path]`.
	 * @param bool   $fixed Whether a constant in wp-config.php names it.
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
	 * Tell whether somebody could be there at all. It costs next to nothing.
	 *
	 * @return bool
	 */
	public function exists() {
		return '/' !== $this->address[0] || file_exists( $this->address );
	}

	/**
	 * Return why nothing may be sent there.
	 *
	 * @return string '' if it may, else as Destination::refusal() returns it.
	 */
	public function refusal() {
		return Destination::refusal( $this->text, $this->fixed );
	}

	/**
	 * Hand a message over to the kernel.
	 *
	 * @param string $body The OTLP.
	 * @return string '' if it was taken, else why it was not. TOO_LARGE and BUSY are about this message alone.
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
	 * Find out whether somebody listens, and send nothing. (For UDP, nobody can tell.)
	 *
	 * @return string '' if somebody does, else why not.
	 */
	public function probe() {
		$refusal = $this->refusal();
		return '' === $refusal ? $this->exchange( '' ) : $refusal;
	}

	/**
	 * Connect, write, leave, and keep what PHP has to say of it.
	 *
	 * @param string $message What goes over the wire.
	 * @return string '' if it was taken, else why it was not.
	 */
	private function exchange( $message ) {
		// A handler of our own keeps PHP's warnings from other handlers, and error_get_last() as it is.
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
	 * Connect, write, leave.
	 *
	 * @param string $message What goes over the wire.
	 * @param string $problem What PHP warned of.
	 * @return string
	 */
	private function write( $message, &$problem ) {
		// phpcs:disable WordPress.WP.AlternativeFunctions -- these are sockets, no files.
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
			$problem = 'connection refused'; // TCP keeps it for the first write, which a probe has not.
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
		return $written ? self::TOO_LARGE : self::BUSY; // A part of it fits into no buffer: what was written is lost.
	}

	/**
	 * Tell whether the peer is on this host, where there is nothing to wait for.
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
	 * Write an HTTP request around a body.
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
	 * Cut PHP's warning down to the system's words.
	 *
	 * @param string $problem Like `fwrite(): Send of 10 bytes failed with errno=111 Connection refused`.
	 * @return string
	 */
	private static function why( $problem ) {
		$words = strtolower( preg_replace( '/^.*errno=\d+ /', '', $problem ) );
		return false === strpos( $words, 'temporarily unavailable' ) ? $words : self::BUSY; // EAGAIN.
	}
}
