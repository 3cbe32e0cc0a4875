<?php
/**
 * IP addresses.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Classifies IP addresses and matches them against networks in CIDR notation. It resolves no names.
 */
final class Address {

	const ORDINARY  = 'ordinary';
	const LOOPBACK  = 'loopback';
	const FORBIDDEN = 'forbidden'; // Link-local, metadata service, unspecified, multicast or reserved.

	/**
	 * Networks that no agent is in, by family. The first ones of each family are addresses of clouds' metadata
	 * services.
	 */
	const FORBIDDEN_NETWORKS = array(
		'169.254.0.0/16',
		'100.100.100.200/32',
		'168.63.129.16/32',
		'192.0.0.192/32',
		'0.0.0.0/8',
		'224.0.0.0/3',
		'fd00:ec2::254/128',
		'fd20:ce::254/128',
		'fe80::/10',
		'::/128',
		'ff00::/8',
	);

	/**
	 * IPv6 networks whose addresses contain an IPv4 address, and the byte where it begins.
	 */
	const EMBEDDING_NETWORKS = array(
		'::/96'        => 12,
		'64:ff9b::/96' => 12,
		'2002::/16'    => 2,
	);

	const MAPPED = "\0\0\0\0\0\0\0\0\0\0\xff\xff"; // The first 12 bytes of an IPv4-mapped IPv6 address.

	/**
	 * Parse an address.
	 *
	 * @param string $text IPv4 in four decimal parts, or IPv6, with or without brackets.
	 * @return string|null 4 or 16 bytes; 4 for an IPv4-mapped IPv6 address; null if it is not an address.
	 */
	public static function parse( $text ) {
		$text = trim( $text, '[]' );
		if ( false === filter_var( $text, FILTER_VALIDATE_IP ) ) {
			return null;
		}
		$bytes = (string) inet_pton( $text );
		return 0 === strpos( $bytes, self::MAPPED ) ? substr( $bytes, 12 ) : $bytes;
	}

	/**
	 * Classify an address.
	 *
	 * @param string $bytes From parse().
	 * @return string ORDINARY, LOOPBACK or FORBIDDEN.
	 */
	public static function kind( $bytes ) {
		if ( 4 === strlen( $bytes ) ? "\x7f" === $bytes[0] : inet_pton( '::1' ) === $bytes ) {
			return self::LOOPBACK;
		}
		foreach ( self::FORBIDDEN_NETWORKS as $network ) {
			if ( self::matches( $bytes, $network ) ) {
				return self::FORBIDDEN;
			}
		}
		foreach ( self::EMBEDDING_NETWORKS as $network => $offset ) {
			if ( self::matches( $bytes, $network ) && self::ORDINARY !== self::kind( substr( $bytes, $offset, 4 ) ) ) {
				return self::FORBIDDEN;
			}
		}
		return self::ORDINARY;
	}

	/**
	 * Return whether a text is an address or a network in CIDR notation.
	 *
	 * @param string $text Like `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`.
	 * @return bool
	 */
	public static function is_network( $text ) {
		return null !== self::network( $text );
	}

	/**
	 * Return whether an address is in one of several networks.
	 *
	 * @param string   $text     An address.
	 * @param string[] $networks Addresses or networks in CIDR notation; invalid ones contain nothing.
	 * @return bool
	 */
	public static function is_within( $text, array $networks ) {
		$bytes = self::parse( $text );
		if ( null === $bytes ) {
			return false;
		}
		foreach ( $networks as $network ) {
			if ( is_string( $network ) && self::matches( $bytes, $network ) ) {
				return true;
			}
		}
		return false;
	}

	/**
	 * Return whether an address is in a network.
	 *
	 * @param string $bytes   From parse().
	 * @param string $network In CIDR notation.
	 * @return bool
	 */
	private static function matches( $bytes, $network ) {
		$parsed = self::network( $network );
		if ( null === $parsed || strlen( $parsed[0] ) !== strlen( $bytes ) ) {
			return false;
		}
		list( $base, $length ) = $parsed;

		$whole = intdiv( $length, 8 );
		$rest  = $length % 8;
		if ( substr( $base, 0, $whole ) !== substr( $bytes, 0, $whole ) ) {
			return false;
		}
		return 0 === $rest || 0 === ( ( ord( $base[ $whole ] ) ^ ord( $bytes[ $whole ] ) ) >> ( 8 - $rest ) );
	}

	/**
	 * Parse a network.
	 *
	 * @param string $text In CIDR notation.
	 * @return array{0: string, 1: int}|null Its first address, and the number of bits that count; null if it is not a network.
	 */
	private static function network( $text ) {
		if ( ! preg_match( '#^([0-9A-Fa-f:.]{2,45})(?:/(\d{1,3}))?$#D', $text, $found ) ) {
			return null;
		}
		$bytes = self::parse( $found[1] );
		if ( null === $bytes ) {
			return null;
		}
		$bits   = 8 * strlen( $bytes );
		$length = isset( $found[2] ) ? (int) $found[2] : $bits;
		if ( isset( $found[2] ) && 32 === $bits && false !== strpos( $found[1], ':' ) ) {
			$length -= 96; // An IPv4-mapped network counts the bits of IPv6.
		}
		return $length < 0 || $length > $bits ? null : array( $bytes, $length );
	}
}
