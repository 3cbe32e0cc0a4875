<?php
/**
 * The plugin or theme that code belongs to.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;

defined( 'ABSPATH' ) || exit;

/**
 * Finds the plugin or theme that caused a query, an outgoing request, a mail or an error.
 *
 * It is the first one in the call stack, from the inside. If there is none, WordPress itself did it.
 */
final class Owner {

	/**
	 * File => attribute with the plugin or theme; an empty array for files of WordPress.
	 *
	 * @var array<string, array>
	 */
	private static $files = array();

	/**
	 * Folder with a trailing slash => the attribute for what is in it.
	 *
	 * @var array<string, string>
	 */
	private static $folders = array();

	/**
	 * Return the plugin or theme that runs now as attributes, with function, file and line; an empty array if only
	 * WordPress is in the call stack. A stack of 30 frames takes 5 µs.
	 *
	 * @return array
	 */
	public static function of_stack() {
		// phpcs:ignore WordPress.PHP.DevelopmentFunctions.error_log_debug_backtrace -- without arguments and objects.
		return self::of_frames( debug_backtrace( DEBUG_BACKTRACE_IGNORE_ARGS ) );
	}

	/**
	 * Return the plugin or theme of a call stack, as of_stack() does.
	 *
	 * @param array[] $frames From debug_backtrace(), the innermost first.
	 * @return array
	 */
	public static function of_frames( array $frames ) {
		foreach ( $frames as $number => $frame ) {
			if ( ! isset( $frame['file'] ) ) {
				continue;
			}
			$file  = $frame['file'];
			$found = isset( self::$files[ $file ] ) ? self::$files[ $file ] : self::of_file( $file );
			if ( $found && 0 !== strpos( $file, OTELWP_DIR . '/' ) ) {
				$function = isset( $frames[ $number + 1 ] ) ? self::name( $frames[ $number + 1 ] ) : '';
				return $found + ( '' === $function ? array() : array( 'code.function.name' => $function ) ) + array(
					'code.file.path'   => Redact::path( $file ),
					'code.line.number' => $frame['line'],
				);
			}
		}
		return array();
	}

	/**
	 * Return the plugin or theme of the first function of a hook that belongs to one, as of_callable() does.
	 *
	 * @param string $hook The hook.
	 * @return array
	 */
	public static function of_hook( $hook ) {
		global $wp_filter;
		foreach ( isset( $wp_filter[ $hook ] ) ? $wp_filter[ $hook ]->callbacks : array() as $callbacks ) {
			foreach ( $callbacks as $callback ) {
				$found = self::of_callable( $callback['function'] );
				if ( $found ) {
					return $found;
				}
			}
		}
		return array();
	}

	/**
	 * Return the plugin or theme of a function as attributes, with its name, file and line; an empty array if it belongs
	 * to WordPress, to PHP or to this plugin.
	 *
	 * @param mixed $callback   A callable.
	 * @param bool  $replacable Whether an empty array is returned, too, for a function that takes a reference, which
	 *                          another function cannot pass on.
	 * @return array
	 */
	public static function of_callable( $callback, $replacable = false ) {
		try {
			if ( is_string( $callback ) && false !== strpos( $callback, '::' ) ) {
				$callback = explode( '::', $callback, 2 );
			}
			if ( is_array( $callback ) ) {
				$function = new \ReflectionMethod( $callback[0], $callback[1] );
			} elseif ( is_object( $callback ) && ! $callback instanceof \Closure ) {
				$function = new \ReflectionMethod( $callback, '__invoke' );
			} else {
				$function = new \ReflectionFunction( $callback );
			}
		} catch ( \Throwable $error ) {
			return array(); // A method that __call() handles, or no function at all.
		}
		$file  = (string) $function->getFileName();
		$found = '' === $file ? array() : self::of_file( $file );
		if ( ! $found || 0 === strpos( $file, OTELWP_DIR . '/' ) ) {
			return array();
		}
		foreach ( $replacable ? $function->getParameters() : array() as $parameter ) {
			if ( $parameter->isPassedByReference() ) {
				return array();
			}
		}
		return $found + array(
			'code.function.name' => ( $function instanceof \ReflectionMethod ? $function->class . '::' : '' ) . $function->getName(),
			'code.file.path'     => Redact::path( $file ),
			'code.line.number'   => (int) $function->getStartLine(),
		);
	}

	/**
	 * Return the plugin or theme of a file as an attribute; an empty array for files of WordPress.
	 *
	 * @param string $file Absolute path.
	 * @return array
	 */
	public static function of_file( $file ) {
		if ( isset( self::$files[ $file ] ) ) {
			return self::$files[ $file ];
		}
		self::$files[ $file ] = array();
		foreach ( self::folders() as $folder => $attribute ) {
			if ( 0 === strpos( $file, $folder ) && preg_match( '#^([^/]+?)(?:\.php$|\.php\(|/)#', substr( $file, strlen( $folder ) ), $name ) ) {
				self::$files[ $file ] = array( $attribute => $name[1] );
				break;
			}
		}
		return self::$files[ $file ];
	}

	/**
	 * Return the folders with plugins and themes.
	 *
	 * @return array<string, string>
	 */
	private static function folders() {
		global $wp_plugin_paths;
		if ( ! self::$folders ) {
			self::$folders = array(
				WP_PLUGIN_DIR . '/'         => 'wordpress.plugin',
				WPMU_PLUGIN_DIR . '/'       => 'wordpress.plugin',
				WP_CONTENT_DIR . '/themes/' => 'wordpress.theme',
			);
			if ( function_exists( 'get_theme_root' ) ) {
				self::$folders[ get_theme_root() . '/' ] = 'wordpress.theme';
			}
		}
		$linked = array();
		foreach ( (array) $wp_plugin_paths as $real ) { // Plugins that are symbolic links.
			$linked[ dirname( $real ) . '/' ] = 'wordpress.plugin';
		}
		return self::$folders + $linked;
	}

	/**
	 * Return the name of a function in a stack; '' for a file that is included.
	 *
	 * @param array $frame From debug_backtrace().
	 * @return string
	 */
	private static function name( array $frame ) {
		if ( ! isset( $frame['class'] ) ) {
			return in_array( $frame['function'], array( 'include', 'include_once', 'require', 'require_once' ), true ) ? '' : $frame['function'];
		}
		return $frame['class'] . $frame['type'] . $frame['function'];
	}
}
