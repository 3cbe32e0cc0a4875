<?php
/**
 * SQL without its values.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

defined( 'ABSPATH' ) || exit;

/**
 * Removes values from statements, by which they are grouped, and derives short names for their spans.
 */
final class Sql {

	/**
	 * Replacements in this order: literals, comments, white space, lists of values, rows of values.
	 *
	 * An unterminated string extends to the end, because its rest is a value, too. Literals in comments and backquotes
	 * are skipped. All quantifiers are possessive, so that a megabyte in quotes takes one pass.
	 */
	const PATTERNS = array(
		'~
			(?: ` [^`]*+ (?:`|$) | /\* (?:[^*]++|\*(?!/))*+ (?:\*/|$) | (?:--\s|\#) [^\n]*+ ) (*SKIP)(*FAIL)
			| \' (?:[^\'\\\\]++|\\\\.|\'\')*+ (?:\'|\\\\?$)
			| "  (?:[^"\\\\]++|\\\\.|"")*+ (?:"|\\\\?$)
			| (?<![\w.$]) (?: 0x[0-9a-f]++ | \d++(?:\.\d++)?+(?:e[+-]?\d++)?+ ) (?![\w$])
		~xis',
		'~/\*(?:[^*]++|\*(?!/))*+(?:\*/|$)|(?:--\s|\#)[^\n]*+~',
		'/\s{2,}+|[\t\r\n]/',
		'/\(\s*+\?(?:\s*+,\s*+\?)*+\s*+\)/',
		'/(VALUES\s*+\(\?\))(?:\s*+,\s*+\(\?\))++/i',
	);

	const REPLACEMENTS = array( '?', ' ', ' ', '(?)', '$1' );

	const MAX_LENGTH = 4096; // Maximum bytes of a statement that are processed.

	/**
	 * Return a statement without values: `SELECT * FROM wp_posts WHERE ID IN (?)`.
	 *
	 * @param string $sql The statement.
	 * @return string At most 1000 bytes.
	 */
	public static function shape( $sql ) {
		if ( isset( $sql[ self::MAX_LENGTH ] ) ) {
			$sql = substr( $sql, 0, self::MAX_LENGTH );
		}
		$shape = preg_replace( self::PATTERNS, self::REPLACEMENTS, $sql );
		if ( null === $shape ) {
			return strtoupper( (string) strtok( ltrim( $sql ), " \t\r\n(" ) ); // PCRE failed: the verb contains no value.
		}
		return substr( trim( $shape ), 0, 1000 );
	}

	/**
	 * Return a message of the database without quoted text, which may be personal data. Everything from the first to
	 * the last quote is removed, because quoted text may contain quotes.
	 *
	 * @param string $text Like `Duplicate entry 'x' for key 'y'`.
	 * @return string
	 */
	public static function message( $text ) {
		return (string) preg_replace( '/(?<!\w)\'.*\'(?!\w)/s', "'?'", $text );
	}

	/**
	 * Return the operation and the table of a statement: `SELECT` and `wp_posts`; '' if there is none.
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
	 * Return the name for a span: `SELECT posts`. The prefix is removed, because each site of a network has its own.
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
