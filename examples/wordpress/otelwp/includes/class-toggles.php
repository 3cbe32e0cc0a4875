<?php
/**
 * Signed toggles.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Verifies the toggles in an answer to a heartbeat: a JWS in the compact form, signed with Ed25519.
 *
 * A toggle can stop the plugin, so the plugin obeys only the owner of the key in the setting `toggles_key`.
 */
final class Toggles {

	const BLOCK  = 'block_plugin'; // Record and send nothing, apart from heartbeats.
	const UPDATE = 'force_update'; // Show administrators that an update is mandatory.
	const DEBUG  = 'enable_debug'; // Write a line to PHP's error log for each trace and heartbeat.
	const SLOW   = 'rate_limit'; // Record at most SLOW_RATE of the requests, and profile none.

	const KEYS = array( self::BLOCK, self::UPDATE, self::DEBUG, self::SLOW );

	const SLOW_RATE = 0.01;

	const TYPE = 'otelwp-toggles+jwt';

	const AUDIENCE = 'plugin';

	const MAX_BYTES = 4096;

	/**
	 * Return the toggles that are on.
	 *
	 * @param mixed  $jws          `signed_toggles` of an answer.
	 * @param string $installation The id of this installation.
	 * @param string $key          The public key in base64url.
	 * @param int    $now          Unix time.
	 * @param int    $since        `at` of the last valid toggles: older ones are a replay.
	 * @return array{on: string[], until: int, at: int}|\WP_Error
	 */
	public static function verify( $jws, $installation, $key, $now, $since = 0 ) {
		if ( '' === $key ) {
			return self::invalid( __( 'there is no public key in the settings', 'otelwp' ) );
		}
		if ( ! function_exists( 'sodium_crypto_sign_verify_detached' ) ) {
			return self::invalid( __( 'this PHP cannot verify signatures, because it has no sodium', 'otelwp' ) );
		}
		$parts = is_string( $jws ) && strlen( $jws ) <= self::MAX_BYTES ? explode( '.', $jws ) : array();
		if ( 3 !== count( $parts ) ) {
			return self::invalid( __( 'the answer contains no signed toggles', 'otelwp' ) );
		}
		$public    = self::decode( $key );
		$signature = self::decode( $parts[2] );
		if ( SODIUM_CRYPTO_SIGN_PUBLICKEYBYTES !== strlen( $public ) ) {
			return self::invalid( __( 'the public key in the settings is invalid', 'otelwp' ) );
		}
		if ( SODIUM_CRYPTO_SIGN_BYTES !== strlen( $signature ) || ! sodium_crypto_sign_verify_detached( $signature, $parts[0] . '.' . $parts[1], $public ) ) {
			return self::invalid( __( 'the signature is invalid, or made with another key', 'otelwp' ) );
		}
		$header = json_decode( self::decode( $parts[0] ), true );
		$claims = json_decode( self::decode( $parts[1] ), true );
		if ( ! isset( $header['typ'], $claims['aud'], $claims['sub'], $claims['iat'], $claims['exp'], $claims['toggles'] ) || self::TYPE !== $header['typ'] || self::AUDIENCE !== $claims['aud'] || ! is_array( $claims['toggles'] ) || ! is_int( $claims['iat'] ) || ! is_int( $claims['exp'] ) ) {
			return self::invalid( __( 'the signed text does not contain toggles for plugins', 'otelwp' ) );
		}
		if ( $claims['sub'] !== $installation ) {
			return self::invalid( __( 'they are for another installation', 'otelwp' ) );
		}
		if ( $claims['exp'] <= $now ) {
			return self::invalid( __( 'they have expired, or the clock of this host is wrong', 'otelwp' ) );
		}
		if ( $claims['iat'] < $since ) {
			return self::invalid( __( 'they are older than the toggles of an earlier answer', 'otelwp' ) );
		}
		$on = array();
		foreach ( self::KEYS as $name ) {
			if ( isset( $claims['toggles'][ $name ] ) && true === $claims['toggles'][ $name ] ) {
				$on[] = $name;
			}
		}
		return array(
			'on'    => $on,
			'until' => $claims['exp'],
			'at'    => $claims['iat'],
		);
	}

	/**
	 * Return whether a text is a public key.
	 *
	 * @param string $text Any.
	 * @return bool
	 */
	public static function is_key( $text ) {
		return 1 === preg_match( '/^[A-Za-z0-9_-]{43}$/D', $text ) && 32 === strlen( self::decode( $text ) );
	}

	/**
	 * Decode base64url.
	 *
	 * @param string $text Without padding.
	 * @return string '' if it is invalid.
	 */
	private static function decode( $text ) {
		return (string) base64_decode( strtr( $text, '-_', '+/' ), true ); // phpcs:ignore WordPress.PHP.DiscouragedPHPFunctions -- the encoding of JWS.
	}

	/**
	 * Return the error for toggles that are not obeyed.
	 *
	 * @param string $why The reason.
	 * @return \WP_Error
	 */
	private static function invalid( $why ) {
		return new \WP_Error( 'otelwp_toggles', $why );
	}
}
