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
	 * What is replaced, in this order: literals, comments, white space, lists of values, rows of values.
	 *
	 * A string that is cut off runs to the end: its rest is a value, too. What looks like a literal in a comment or in
	 * backquotes is passed over. No quantifier gives back what it took, so that a megabyte in quotes costs one pass.
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

	const MAX_LENGTH = 4096; // Bytes of a statement that are looked at.

	/**
	 * Return the shape of a statement: `SELECT * FROM wp_posts WHERE ID IN (?)`.
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
			return strtoupper( (string) strtok( ltrim( $sql ), " \t\r\n(" ) ); // PCRE gave up: the verb holds no value.
		}
		return substr( trim( $shape ), 0, 1000 );
	}

	/**
	 * Return a message of the database without what it quotes, which may be anybody's: all from the first quote to the
	 * last, for what is quoted may hold quotes.
	 *
	 * @param string $text Like `Duplicate entry 'x' for key 'y'`.
	 * @return string
	 */
	public static function message( $text ) {
		return (string) preg_replace( '/(?<!\w)\'.*\'(?!\w)/s', "'?'", $text );
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
