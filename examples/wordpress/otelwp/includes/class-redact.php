<?php
/**
 * Removes personal data and secrets from text.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Redacts all text that leaves this host, so that it does not identify visitors.
 */
final class Redact {

	/**
	 * Names of parameters whose values are secrets, people or search terms. The agent's processor has the same list.
	 */
	const PARAMETER = '/pass|pwd|token|nonce|secret|api_?key|(?:^|[_\-\[])key|auth(?!or)|sig(?:nature)?$|hash|session|mail|phone|user|login|card|[_\-\[](?:name|code)\]?$|^(?:code|log|q|s|search|query|ip|(?:first|last|display|full|nick)_?name)$/i';

	const ALL = '[redacted]'; // Replaces a text that could not be searched.

	const MAX_TEXT = 4096; // Maximum bytes of a message.

	/**
	 * Return a message without secrets, addresses, long numbers, query strings and the path of this installation.
	 *
	 * @param string $text Of an error.
	 * @return string
	 */
	public static function text( $text ) {
		if ( isset( $text[ self::MAX_TEXT ] ) ) {
			// A truncated secret matches no pattern, so the truncated word is removed completely.
			$text = substr( $text, 0, self::MAX_TEXT );
			$text = substr( $text, 0, -strcspn( strrev( $text ), " \t\r\n" ) );
		}
		$text = str_replace( array( WP_CONTENT_DIR . '/', ABSPATH ), array( 'wp-content/', '' ), $text );
		$text = preg_replace(
			array( '/\?[\w\[\]%.-]++=\S*+/', '/(?<![\w.+%-])(?!REDACTED@)[\w.+%-]{1,256}+@(?:[\w-]++\.)++[a-z]{2,}+/i', '/\d{6,}+(?! bytes)/' ),
			array( '?[query]', '[email]', '[number]' ),
			Secrets::redact( $text )
		);
		return null === $text ? self::ALL : substr( $text, 0, 500 );
	}

	/**
	 * Return a query string with the values of sensitive parameters redacted.
	 *
	 * @param string $query Without the question mark.
	 * @return string
	 */
	public static function query( $query ) {
		$parts = array();
		foreach ( array_slice( explode( '&', $query ), 0, 50 ) as $part ) {
			$pair    = explode( '=', $part, 2 );
			$hide    = isset( $pair[1] ) && '' !== $pair[1] && ( 0 !== preg_match( self::PARAMETER, urldecode( $pair[0] ) ) || Secrets::found( urldecode( $pair[1] ) ) );
			$parts[] = $hide ? $pair[0] . '=' . Secrets::MARK : $part;
		}
		return substr( implode( '&', $parts ), 0, 1024 );
	}

	/**
	 * Return an address of the agent for reports that administrators may share: only the host, the port and the usual
	 * path, because everything else may be a secret.
	 *
	 * @param string $text An endpoint or the address of an agent, valid or not.
	 * @return string
	 */
	public static function address( $text ) {
		if ( ! preg_match( '#^((?:unix|unixgram):///[!-~]*|[a-z]+://(?:[^/?\#\s]*@)?([\w.:\[\]-]+))(/v1/traces|/sampling|/)?(.*)$#Dis', $text, $found ) ) {
			return self::ALL;
		}
		if ( 0 === strncasecmp( $text, 'unix', 4 ) ) {
			return $found[1];
		}
		return strtok( $text, ':' ) . '://' . $found[2] . $found[3] . ( '' === $found[4] ? '' : self::ALL );
	}

	/**
	 * Return an exception for a log: one line, without arguments, secrets and control characters.
	 *
	 * @param \Throwable $error The exception.
	 * @return string
	 */
	public static function error( \Throwable $error ) {
		$line = get_class( $error ) . ': ' . self::text( $error->getMessage() ) . ' in ' . self::path( $error->getFile() ) . ':' . $error->getLine();
		return (string) preg_replace( '/[\x00-\x1f\x7f]++/', ' ', $line );
	}

	/**
	 * Return a file's path relative to WordPress's folder.
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
	 * Return attributes with the location of code: file, line, and the plugin or theme that it belongs to.
	 *
	 * @param string $file Absolute.
	 * @param int    $line Line in the file.
	 * @return array
	 */
	public static function code( $file, $line ) {
		return array(
			'code.file.path'   => self::path( $file ),
			'code.line.number' => $line,
		) + Collect\Owner::of_file( $file );
	}
}
