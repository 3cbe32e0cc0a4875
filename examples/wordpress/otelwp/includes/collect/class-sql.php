<?php
/**
 * SQL without its values.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

defined( 'ABSPATH' ) || exit;

/**
 * Reduces statements to their shape, by which they are grouped, and to a few words, by which their spans are named.
 */
final class Sql {

	/**
	 * Literals, comments and runs of white space. A string that is cut off runs to the end: its rest is a value, too.
	 *
	 * No quantifier here gives back what it took, so that a megabyte in quotes costs one pass.
	 */
	const LITERALS = '~
		(?<text> \'(?:[^\'\\\\]++|\\\\.|\'\')*+(?:\'|\\\\?$) | "(?:[^"\\\\]++|\\\\.|"")*+(?:"|\\\\?$) )
		| `[^`]*+(?:`|$)(*SKIP)(*FAIL)
		| (?<comment> /\*(?:[^*]++|\*(?!/))*+(?:\*/|$) | (?:--\s|\#)[^\n]*+ )
		| (?<![\w.$])(?<number> 0x[0-9a-f]++ | \d++(?:\.\d++)?+(?:e[+-]?\d++)?+ )(?![\w$])
		| (?<space> \s{2,}+ | [\r\n\t] )
		~xis';

	const MAX_LENGTH = 4096; // Bytes of a statement that are looked at.

	/**
	 * Return the shape of a statement: `SELECT * FROM wp_posts WHERE ID IN (?)`.
	 *
	 * @param string $sql The statement.
	 * @return string At most 1000 bytes.
	 */
	public static function shape( $sql ) {
		if ( strlen( $sql ) > self::MAX_LENGTH ) {
			$sql = substr( $sql, 0, self::MAX_LENGTH );
		}
		$shape = preg_replace_callback(
			self::LITERALS,
			static function ( $found ) {
				return isset( $found['space'] ) || ( isset( $found['comment'] ) && '' !== $found['comment'] ) ? ' ' : '?';
			},
			$sql
		);
		if ( null === $shape ) {
			return strtoupper( (string) strtok( ltrim( $sql ), " \t\r\n(" ) ); // PCRE gave up: the verb holds no value.
		}
		// Lists of any length have one shape, and so have any number of rows.
		$shape = preg_replace( array( '/\(\s*\?(?:\s*,\s*\?)*+\s*\)/', '/(VALUES\s*\(\?\))(?:\s*,\s*\(\?\))++/i', '/ {2,}/' ), array( '(?)', '$1', ' ' ), $shape );
		return substr( trim( (string) $shape ), 0, 1000 );
	}

	/**
	 * Return the operation and the table of a shape: `SELECT` and `wp_posts`; '' for what there is not.
	 *
	 * @param string $shape From shape().
	 * @return string[]
	 */
	public static function operation( $shape ) {
		if ( ! preg_match( '/^\(*\s*([a-z]+)/i', $shape, $verb ) ) {
			return array( '', '' );
		}
		$verb = strtoupper( $verb[1] );
		if ( 'SHOW' === $verb || 'SET' === $verb || ! preg_match( '/\b(?:FROM|INTO|UPDATE|JOIN|TABLE|REPLACE|DESCRIBE)\s+(?:LOW_PRIORITY\s+|IGNORE\s+|INTO\s+|IF\s+(?:NOT\s+)?EXISTS\s+)*`?([\w$]+(?:`?\.`?[\w$]+)?)/i', $shape, $table ) ) {
			return array( $verb, '' );
		}
		return array( $verb, str_replace( '`', '', $table[1] ) );
	}

	/**
	 * Return the name for a span: `SELECT posts`. Without the prefix, for each site of a network has its own.
	 *
	 * @param string $verb   The operation.
	 * @param string $table  The table.
	 * @param string $prefix Of this site's tables.
	 * @param string $base   Of the network's tables.
	 * @return string
	 */
	public static function summary( $verb, $table, $prefix, $base ) {
		foreach ( array( $prefix, $base ) as $start ) {
			if ( '' !== (string) $start && 0 === strpos( $table, $start ) ) {
				$table = preg_replace( '/^\d+_/', '', substr( $table, strlen( $start ) ) );
				break;
			}
		}
		return trim( ( '' === $verb ? 'query' : $verb ) . ' ' . $table );
	}
}
