<?php
/**
 * Requests to the agent.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * A small HTTP client that waits for an answer, for cron, the dashboard and WP-CLI. Pages never wait.
 *
 * It replaces WP_Http, which does not support unix sockets and may not be allowed to connect to this host
 * (WP_HTTP_BLOCK_EXTERNAL).
 */
final class Agent_Client {

	const SECONDS = 2.0; // Timeout of the whole exchange.

	const MAX_BYTES = 65536; // Maximum size of an answer.

	/**
	 * Split an address into its parts.
	 *
	 * @param string $url `http://host:port[/path]`, the same with `https`, or `unix:///path/of.sock`.
	 * @return array{socket: string, host: string, path: string}|null
	 */
	public static function parse( $url ) {
		if ( false !== strpbrk( $url, '?#' ) ) {
			return null;
		}
		if ( preg_match( '#^unix://(/[!-~]{1,106})$#D', $url, $found ) ) {
			return array(
				'socket' => 'unix://' . $found[1],
				'host'   => 'localhost',
				'path'   => '',
			);
		}
		if ( ! preg_match( '#^http(s?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?(/[!-~]*)?$#D', $url, $found ) ) {
			return null;
		}
		$tls  = 's' === $found[1];
		$host = ( Destination::is_localhost( $found[2] ) ? '127.0.0.1' : $found[2] ) . ':' . ( isset( $found[3] ) && '' !== $found[3] ? $found[3] : ( $tls ? '443' : '80' ) );
		return array(
			'socket' => ( $tls ? 'ssl://' : 'tcp://' ) . $host,
			'host'   => $host,
			'path'   => isset( $found[4] ) ? rtrim( $found[4], '/' ) : '',
		);
	}

	/**
	 * Send a request and return the answer. A redirect is returned like any other answer and never followed, because
	 * the headers may contain the API key.
	 *
	 * @param string $method  GET or POST.
	 * @param string $url     Address of the agent.
	 * @param string $path    Path, appended to the address.
	 * @param string $body    For POST: JSON, unless `$headers` names another `Content-Type`.
	 * @param array  $headers Additional headers, name => value.
	 * @param string $setting The setting with the address.
	 * @return array{status: int, headers: array, body: string}|\WP_Error
	 */
	public static function request( $method, $url, $path, $body = '', array $headers = array(), $setting = 'agent_url' ) {
		$to = self::parse( $url );
		if ( null === $to ) {
			return new \WP_Error( 'otelwp_address', __( 'The address of the agent is invalid.', 'otelwp' ) );
		}
		$refusal = Destination::refusal( $url, Settings::is_constant( $setting ) );
		if ( '' !== $refusal ) {
			return new \WP_Error( 'otelwp_refused', Destination::explain( $refusal, $setting ) );
		}
		$head = $method . ' ' . $to['path'] . $path . " HTTP/1.0\r\nHost: " . $to['host'] . "\r\nUser-Agent: otelwp/" . OTELWP_VERSION . "\r\nConnection: close\r\n";
		if ( 'POST' === $method ) {
			$headers += array(
				'Content-Type'   => 'application/json',
				'Content-Length' => (string) strlen( $body ),
			);
		}
		foreach ( $headers as $name => $value ) {
			$head .= $name . ': ' . preg_replace( '/[^ -~]/', '', $value ) . "\r\n";
		}
		$answer = self::exchange( $to['socket'], $head . "\r\n" . $body, $setting );
		if ( is_wp_error( $answer ) ) {
			return $answer;
		}
		list( $top, $rest ) = explode( "\r\n\r\n", $answer, 2 ) + array( '', '' );

		$lines = explode( "\r\n", $top );
		if ( ! preg_match( '#^HTTP/1\.[01] (\d{3})#', $lines[0], $status ) ) {
			return new \WP_Error( 'otelwp_answer', __( 'The answer is not HTTP.', 'otelwp' ) );
		}
		$fields = array();
		foreach ( array_slice( $lines, 1 ) as $line ) {
			list( $name, $value )                  = explode( ':', $line, 2 ) + array( '', '' );
			$fields[ strtolower( trim( $name ) ) ] = trim( $value );
		}
		return array(
			'status'  => (int) $status[1],
			'headers' => $fields,
			'body'    => $rest,
		);
	}

	/**
	 * Return the options of a connection. Certificates are always verified, with the authorities of this host or those in
	 * the file that OTELWP_CA_FILE names.
	 *
	 * @param string $socket Address in PHP's notation.
	 * @return resource
	 */
	private static function context( $socket ) {
		if ( 0 !== strpos( $socket, 'ssl:' ) ) {
			return stream_context_create();
		}
		$tls = array(
			'verify_peer'       => true,
			'verify_peer_name'  => true,
			'allow_self_signed' => false,
			'peer_name'         => trim( substr( $socket, 6, strrpos( $socket, ':' ) - 6 ), '[]' ),
		);
		return stream_context_create( array( 'ssl' => $tls + ( defined( 'OTELWP_CA_FILE' ) ? array( 'cafile' => (string) OTELWP_CA_FILE ) : array() ) ) );
	}

	/**
	 * Write a message, then read until the agent closes the connection.
	 *
	 * @param string $socket  Address in PHP's notation.
	 * @param string $message The message.
	 * @param string $setting The setting with the address.
	 * @return string|\WP_Error
	 */
	private static function exchange( $socket, $message, $setting ) {
		// phpcs:disable WordPress.WP.AlternativeFunctions, WordPress.PHP.NoSilencedErrors -- these are sockets, not files; the error is returned.
		$deadline   = microtime( true ) + self::SECONDS;
		$connection = @stream_socket_client( $socket, $code, $error, self::SECONDS, STREAM_CLIENT_CONNECT, self::context( $socket ) );
		if ( ! $connection && 0 === strpos( $socket, 'ssl:' ) && '' === (string) $error ) {
			return new \WP_Error( 'otelwp_tls', __( 'There is no trusted TLS connection. If the certificate is signed by an authority of your own, name its file in wp-config.php with the constant OTELWP_CA_FILE.', 'otelwp' ) );
		}
		if ( ! $connection ) {
			return new \WP_Error( 'otelwp_connect', '' === (string) $error ? __( 'No process accepts connections there.', 'otelwp' ) : $error );
		}
		$refusal = 0 === strpos( $socket, 'unix:' ) ? '' : Destination::peer_refusal( $connection );
		if ( '' !== $refusal ) {
			fclose( $connection );
			return new \WP_Error( 'otelwp_refused', Destination::explain( $refusal, $setting ) );
		}
		stream_set_blocking( $connection, false );
		$answer = '';
		while ( ! feof( $connection ) && ! isset( $answer[ self::MAX_BYTES ] ) ) {
			$left   = (int) ( ( $deadline - microtime( true ) ) * 1e6 );
			$read   = array( $connection );
			$write  = '' === $message ? null : $read;
			$except = null;
			if ( $left <= 0 || ! stream_select( $read, $write, $except, 0, $left ) ) {
				fclose( $connection );
				return new \WP_Error( 'otelwp_timeout', __( 'The agent accepted the request and did not answer in time.', 'otelwp' ) );
			}
			if ( $write ) {
				$message = substr( $message, (int) @fwrite( $connection, $message ) );
			}
			if ( $read ) {
				$answer .= @fread( $connection, 8192 );
			}
		}
		fclose( $connection );
		// phpcs:enable
		return $answer;
	}
}
