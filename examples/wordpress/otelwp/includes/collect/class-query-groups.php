<?php
/**
 * Database queries by statement.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

defined( 'ABSPATH' ) || exit;

/**
 * Groups the queries of a request by their statements without values, in bounded memory.
 */
final class Query_Groups {

	const MAX = 500; // Groups that are kept at the same time.

	// The fields of a group.
	const COUNT   = 0;
	const SECONDS = 1;
	const CALLERS = 2; // Of the last query.
	const OWNER   = 3; // Attributes of the plugin or theme of the last query.

	const EMPTY_GROUP = array( 0, 0.0, '', array() );

	/**
	 * Statement without values => group.
	 *
	 * @var array<string, array>
	 */
	private $groups = array();

	/**
	 * Number of groups that were removed because there were too many.
	 *
	 * @var int
	 */
	private $removed = 0;

	/**
	 * Add a query to its group.
	 *
	 * @param string $shape   The statement without values.
	 * @param float  $seconds Its duration.
	 * @param string $callers Functions, the nearest last.
	 * @param array  $owner   Attributes of the plugin or theme.
	 */
	public function add( $shape, $seconds, $callers, array $owner ) {
		if ( ! isset( $this->groups[ $shape ] ) ) {
			if ( count( $this->groups ) >= self::MAX ) {
				$this->make_room();
			}
			$this->groups[ $shape ] = self::EMPTY_GROUP;
		}
		++$this->groups[ $shape ][ self::COUNT ];
		$this->groups[ $shape ][ self::SECONDS ] += $seconds;
		$this->groups[ $shape ][ self::CALLERS ]  = $callers;
		$this->groups[ $shape ][ self::OWNER ]    = $owner;
	}

	/**
	 * Return the number of groups. A statement whose group was removed meanwhile counts again.
	 *
	 * @return int
	 */
	public function count() {
		return $this->removed + count( $this->groups );
	}

	/**
	 * Return the group of a statement; an empty one if there is none.
	 *
	 * @param string $shape The statement without values.
	 * @return array
	 */
	public function get( $shape ) {
		return isset( $this->groups[ $shape ] ) ? $this->groups[ $shape ] : self::EMPTY_GROUP;
	}

	/**
	 * Return the groups with at least `$least` queries, without statements for single options.
	 *
	 * @param int    $least   Queries.
	 * @param string $options The table of the options.
	 * @return array<string, array>
	 */
	public function repeated( $least, $options ) {
		$found = array();
		foreach ( $this->groups as $shape => $group ) {
			if ( $group[ self::COUNT ] >= $least && '' === self::option_counter( (string) $shape, $options ) ) {
				$found[ $shape ] = $group;
			}
		}
		return $found;
	}

	/**
	 * Count the statements for single options. WordPress itself reads each option without autoload, and writes each
	 * option, with a statement of its own.
	 *
	 * @param string $options The table of the options.
	 * @return array<string, int> By attribute.
	 */
	public function of_options( $options ) {
		$found = array();
		foreach ( $this->groups as $shape => $group ) {
			$attribute = self::option_counter( (string) $shape, $options );
			if ( '' !== $attribute ) {
				$found[ $attribute ] = $group[ self::COUNT ] + ( isset( $found[ $attribute ] ) ? $found[ $attribute ] : 0 );
			}
		}
		return $found;
	}

	/**
	 * Return the attribute that counts a statement for a single option; '' for all other statements.
	 *
	 * @param string $shape   The statement without values.
	 * @param string $options The table of the options.
	 * @return string
	 */
	private static function option_counter( $shape, $options ) {
		if ( false === strpos( $shape, $options ) || ! preg_match( '/ WHERE `?option_name`? = \\?|^INSERT INTO /', $shape ) ) {
			return '';
		}
		list( $verb, $table ) = Sql::operation( $shape );
		if ( $table !== $options ) {
			return '';
		}
		return 'SELECT' === $verb ? 'wordpress.db.option_lookups' : 'wordpress.db.option_updates';
	}

	/**
	 * Keep the half of the groups that ran most often, and of those that ran equally often the newest, so that a
	 * statement that begins to repeat late is found, too.
	 */
	private function make_room() {
		$age  = 0;
		$rank = array();
		foreach ( $this->groups as $shape => $group ) {
			$rank[ $shape ] = array( $group[ self::COUNT ], ++$age );
		}
		arsort( $rank );
		$kept          = array_slice( $rank, 0, intdiv( self::MAX, 2 ), true );
		$this->groups  = array_intersect_key( $this->groups, $kept );
		$this->removed = $this->removed + count( $rank ) - count( $kept );
	}
}
