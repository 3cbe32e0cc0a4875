<?php
/**
 * Unix sockets.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Checks that only the administrator of this host can have created a socket.
 *
 * The owner of the socket can read every trace, and the API key. On a shared host any user can create a socket in a
 * folder like /tmp. So the socket and each folder above it must belong to root, to the user that runs PHP, to the owner
 * of the plugin's files, or to a user in the constant OTELWP_SOCKET_OWNER, and no other user may have write permission
 * for the folder.
 */
final class Unix_Socket {

	const ABSENT  = 'the socket does not exist';
	const LINK    = 'refused: a symbolic link';
	const OTHER   = 'refused: not a socket';
	const OWNER   = 'refused: the socket belongs to another user';
	const FOLDER  = 'refused: others can write to the folder';
	const FOREIGN = 'refused: the folder belongs to another user';

	const MAX_LINKS = 8; // Maximum number of linked folders, like /var/run.

	// Bits of a file's mode.
	const TYPE      = 0170000;
	const DIRECTORY = 0040000;
	const SYMLINK   = 0120000;
	const SOCKET    = 0140000;
	const STICKY    = 01000;
	const BY_OTHERS = 0002;

	/**
	 * Return why a socket must not be used.
	 *
	 * @param string $path Absolute.
	 * @return string '' if it may be used, else one of the constants above.
	 */
	public static function refusal( $path ) {
		$parts   = self::parts( $path );
		$at      = '';
		$links   = 0;
		$trusted = self::trusted();
		while ( $parts ) {
			$name = array_shift( $parts );
			if ( '..' === $name ) {
				$at = substr( $at, 0, (int) strrpos( $at, '/' ) );
				continue;
			}
			clearstatcache( false, $at . '/' . $name );
			$stat = @lstat( $at . '/' . $name ); // phpcs:ignore WordPress.PHP.NoSilencedErrors -- it may be absent.
			if ( false === $stat ) {
				return self::ABSENT;
			}
			$type = $stat['mode'] & self::TYPE;
			if ( self::SYMLINK === $type ) {
				$target = readlink( $at . '/' . $name );
				if ( ! $parts || 0 !== $stat['uid'] || ++$links > self::MAX_LINKS || false === $target ) {
					return self::LINK;
				}
				$at    = '/' === $target[0] ? '' : $at;
				$parts = array_merge( self::parts( $target ), $parts );
				continue;
			}
			if ( ! $parts ) {
				return self::SOCKET !== $type ? self::OTHER : ( in_array( $stat['uid'], $trusted, true ) ? '' : self::OWNER );
			}
			$problem = self::folder_refusal( $stat, $trusted, 1 === count( $parts ) );
			if ( '' !== $problem ) {
				return $problem;
			}
			$at .= '/' . $name;
		}
		return self::OTHER;
	}

	/**
	 * Return why a folder on the way to a socket must not be trusted.
	 *
	 * @param array $stat    Of lstat().
	 * @param int[] $trusted Users that may own it.
	 * @param bool  $direct  Whether it contains the socket itself: then the sticky bit does not help.
	 * @return string
	 */
	private static function folder_refusal( array $stat, array $trusted, $direct ) {
		if ( self::DIRECTORY !== ( $stat['mode'] & self::TYPE ) ) {
			return self::ABSENT;
		}
		if ( ! in_array( $stat['uid'], $trusted, true ) ) {
			return self::FOREIGN;
		}
		return $stat['mode'] & self::BY_OTHERS && ( $direct || ! ( $stat['mode'] & self::STICKY ) ) ? self::FOLDER : '';
	}

	/**
	 * Split a path at its slashes.
	 *
	 * @param string $path Absolute or relative.
	 * @return string[]
	 */
	private static function parts( $path ) {
		return array_values(
			array_filter(
				explode( '/', $path ),
				static function ( $part ) {
					return '' !== $part && '.' !== $part;
				}
			)
		);
	}

	/**
	 * Return the numbers of the users that may own the socket.
	 *
	 * @return int[]
	 */
	private static function trusted() {
		static $trusted = null;
		if ( null === $trusted ) {
			// The owner of this file controls PHP's code anyway. WP-CLI may run as another user than the web server.
			$trusted = array( 0, self::user(), (int) fileowner( __FILE__ ) );
			foreach ( defined( 'OTELWP_SOCKET_OWNER' ) ? (array) OTELWP_SOCKET_OWNER : array() as $name ) {
				if ( is_int( $name ) || ctype_digit( (string) $name ) ) {
					$trusted[] = (int) $name;
					continue;
				}
				$entry = function_exists( 'posix_getpwnam' ) ? posix_getpwnam( (string) $name ) : false;
				if ( is_array( $entry ) ) {
					$trusted[] = $entry['uid'];
				}
			}
		}
		return $trusted;
	}

	/**
	 * Return the number of the user that runs PHP.
	 *
	 * @return int
	 */
	private static function user() {
		if ( function_exists( 'posix_geteuid' ) ) {
			return posix_geteuid();
		}
		$file = tmpfile(); // A new file belongs to the user that creates it.
		$stat = false === $file ? false : fstat( $file );
		return is_array( $stat ) ? $stat['uid'] : 0;
	}
}
