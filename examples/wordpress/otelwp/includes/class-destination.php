<?php
/**
 * Allowed addresses of the agent.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Refuses addresses that an attacker would enter: metadata services and sockets of other users always, other hosts
 * unless wp-config.php contains them.
 *
 * An attacker who controls an administrator's account, or finds an injection in a plugin, can change an option. Only a
 * user who can write files on this host can change wp-config.php.
 */
final class Destination {

	const FORBIDDEN  = 'refused: a link-local, metadata or reserved address';
	const SPELLING   = 'refused: an ambiguous spelling of an address';
	const OTHER_HOST = 'refused: another host, which wp-config.php does not name';

	const FORBIDDEN_NAMES = array( 'metadata', 'metadata.google.internal', 'metadata.goog', 'instance-data', 'instance-data.ec2.internal' );

	/**
	 * Return why an address must not be used.
	 *
	 * @param string $text  `unix:///path`, `unixgram:///path`, `http://host…` or `udp://host…`, which has been parsed before.
	 * @param bool   $fixed Whether a constant in wp-config.php contains it.
	 * @return string '' if it may be used, else a constant of this class or of Unix_Socket.
	 */
	public static function refusal( $text, $fixed ) {
		if ( preg_match( '#^unix(?:gram)?://(/.*)$#Ds', $text, $found ) ) {
			return Unix_Socket::refusal( $found[1] );
		}
		return preg_match( '#^[a-z]+://(\[[^\]]*\]|[^/:]*)#', $text, $found ) ? self::host_refusal( $found[1], $fixed ) : self::SPELLING;
	}

	/**
	 * Return why an address must not be saved as a setting. A socket may be absent when the setting is saved.
	 *
	 * @param string $text  As for refusal().
	 * @return string
	 */
	public static function setting_refusal( $text ) {
		$why = self::refusal( $text, false );
		return Unix_Socket::ABSENT === $why ? '' : $why;
	}

	/**
	 * Return why a host must not be used.
	 *
	 * @param string $host  A name or an address; IPv6 in brackets.
	 * @param bool   $fixed Whether a constant in wp-config.php contains it.
	 * @return string
	 */
	public static function host_refusal( $host, $fixed ) {
		$host  = rtrim( strtolower( $host ), '.' );
		$bytes = Address::parse( $host );
		if ( null !== $bytes ) {
			$kind = Address::kind( $bytes );
			if ( Address::FORBIDDEN === $kind ) {
				return self::FORBIDDEN;
			}
			return $fixed || Address::LOOPBACK === $kind ? '' : self::OTHER_HOST;
		}
		// The system's resolver reads 2130706433, 0x7f.1 and 0177.0.0.1 as IPv4 addresses.
		if ( '' === $host || '[' === $host[0] || preg_match( '/(?:^|\.)(?:\d+|0x[0-9a-f]*)$/D', $host ) ) {
			return self::SPELLING;
		}
		if ( in_array( $host, self::FORBIDDEN_NAMES, true ) ) {
			return self::FORBIDDEN;
		}
		return $fixed || self::is_localhost( $host ) ? '' : self::OTHER_HOST;
	}

	/**
	 * Return whether a name means this host. Such a name is not resolved, because a name server could return another
	 * address.
	 *
	 * @param string $host A name or an address.
	 * @return bool
	 */
	public static function is_localhost( $host ) {
		return 'localhost' === rtrim( strtolower( $host ), '.' );
	}

	/**
	 * Return why data must not be written to a connection: the host name may have resolved to a forbidden address.
	 *
	 * @param resource $connection A connected socket of TCP or UDP.
	 * @return string
	 */
	public static function peer_refusal( $connection ) {
		return self::name_refusal( (string) stream_socket_get_name( $connection, true ) );
	}

	/**
	 * Return why data must not be written to a peer.
	 *
	 * @param string $name Its address and port, as PHP writes them; '' if the socket is not connected.
	 * @return string
	 */
	public static function name_refusal( $name ) {
		if ( '' === $name ) {
			return ''; // Not connected: writing fails.
		}
		$bytes = Address::parse( (string) substr( $name, 0, (int) strrpos( $name, ':' ) ) );
		return null === $bytes || Address::FORBIDDEN === Address::kind( $bytes ) ? self::FORBIDDEN : '';
	}

	/**
	 * Explain a refusal to the administrator, with its remedy.
	 *
	 * @param string $why      From refusal(); anything else is returned unchanged.
	 * @param string $setting  The setting, like `agent_url`.
	 * @return string
	 */
	public static function explain( $why, $setting ) {
		switch ( $why ) {
			case Unix_Socket::ABSENT:
				return __( 'the socket does not exist', 'otelwp' );
			case self::FORBIDDEN:
				return __( 'refused, because it is a link-local, metadata or reserved address, which no agent uses. Write the address that the agent listens on', 'otelwp' );
			case self::SPELLING:
				return __( 'refused, because the address has an ambiguous spelling. Write IPv4 as four decimal numbers, like 127.0.0.1, and IPv6 in brackets, like [::1]', 'otelwp' );
			case self::OTHER_HOST:
				/* translators: %s: name of a constant */
				return sprintf( __( 'refused, because it is another host. Another host must be configured in wp-config.php: define the constant %s there', 'otelwp' ), 'OTELWP_' . strtoupper( $setting ) );
			case Unix_Socket::LINK:
				return __( 'refused, because it is a symbolic link or leads through one that root did not create. Write the path of the socket itself', 'otelwp' );
			case Unix_Socket::OTHER:
				return __( 'refused, because it is not a socket. Write the path of the socket that the agent creates', 'otelwp' );
			case Unix_Socket::OWNER:
			case Unix_Socket::FOREIGN:
				/* translators: %s: name of a constant */
				return sprintf( __( 'refused, because the socket or a folder above it belongs to another user than root and the one that runs PHP. If the agent runs as that user, name it in wp-config.php with the constant %s', 'otelwp' ), 'OTELWP_SOCKET_OWNER' );
			case Unix_Socket::FOLDER:
				return __( 'refused, because every user of this host can write to its folder, and so can replace the socket. Have the agent create it in a folder of its own, like /run/otelwp with mode 0755', 'otelwp' );
			default:
				return $why;
		}
	}
}
