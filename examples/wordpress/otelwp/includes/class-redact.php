<?php
/**
 * Takes people and secrets out of text.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * What leaves this host must not say who was here.
 */
final class Redact {

	const SECRET = '/pass|pwd|token|nonce|secret|key|auth|sig|hash|session|code|email|mail|phone|name|login|user|card|^s$|^q$/i';

	/**
	 * Return a message without addresses, long numbers, query strings and the path of this installation.
	 *
	 * @param string $text Of an error.
	 * @return string
	 */
	public static function text( $text ) {
		$text = str_replace( array( WP_CONTENT_DIR . '/', ABSPATH ), array( 'wp-content/', '' ), substr( $text, 0, 4096 ) );
		$text = (string) preg_replace(
			array( '/[\w.+-]++@[\w-]++\.[\w.-]++/', '/\?[\w\[\]%.-]++=\S*+/', '/\d{6,}+(?! bytes)/' ),
			array( '[email]', '?[query]', '[number]' ),
			$text
		);
		return substr( $text, 0, 500 );
	}

	/**
	 * Return a query string with the values of suspicious parameters hidden.
	 *
	 * @param string $query Without the question mark.
	 * @return string
	 */
	public static function query( $query ) {
		$parts = array();
		foreach ( array_slice( explode( '&', $query ), 0, 50 ) as $part ) {
			$pair    = explode( '=', $part, 2 );
			$hide    = isset( $pair[1] ) && preg_match( self::SECRET, rawurldecode( $pair[0] ) );
			$parts[] = $hide ? $pair[0] . '=REDACTED' : $part;
		}
		return substr( implode( '&', $parts ), 0, 1024 );
	}

	/**
	 * Return a file's path from WordPress's folder on.
	 *
	 * @param string $file Absolute.
	 * @return string
	 */
	public static function path( $file ) {
		foreach ( array(
			WP_CONTENT_DIR . '/' => 'wp-content/',
			ABSPATH              => '',
		) as $folder => $short ) {
			if ( 0 === strpos( $file, $folder ) ) {
				return $short . substr( $file, strlen( $folder ) );
			}
		}
		return basename( $file );
	}

	/**
	 * Return attributes that say where code stands: file, line, and the plugin or theme that it belongs to.
	 *
	 * @param string $file Absolute.
	 * @param int    $line Of it.
	 * @return array
	 */
	public static function code( $file, $line ) {
		$path       = self::path( $file );
		$attributes = array(
			'code.file.path'   => $path,
			'code.line.number' => $line,
		);
		if ( preg_match( '#^wp-content/(plugins|mu-plugins|themes)/([^/]+?)(?:\.php$|/)#', $path, $found ) ) {
			$attributes[ 'themes' === $found[1] ? 'wordpress.theme' : 'wordpress.plugin' ] = $found[2];
		}
		return $attributes;
	}
}
