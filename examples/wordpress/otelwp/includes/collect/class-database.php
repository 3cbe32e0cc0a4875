<?php
/**
 * Database queries.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Redact;
use Otelwp\Settings;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Counts and times queries, groups them by statement without values, and records spans of the slowest and of failed
 * ones.
 *
 * In the mode `timed`, recorded requests use a subclass of wpdb that measures queries. If wp-config.php sets SAVEQUERIES,
 * WordPress measures them, and its list is read instead. Where neither is possible (a drop-in has its own class, another
 * plugin references the object), and in the mode `counted`, statements are read from the filter `query`: then there are
 * groups and counts, but no times and spans. Statements are grouped at the end, or when there are many, so that a query
 * costs little while a page is generated.
 */
final class Database {

	const MAX_SPAN_ERRORS = 10;

	const CHUNK = 500; // Number of queries after which they are grouped.

	// The fields of a query, as in wpdb's list.
	const SQL     = 0;
	const SECONDS = 1;
	const CALLERS = 2; // Functions, comma-separated, the nearest last.
	const START   = 3; // Seconds since 1970.
	const ERROR   = 4; // Message of the database, in own entries. In wpdb's list, other plugins may write anything here.
	const OWNER   = 5; // Attributes of the plugin or theme.

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * The span of the request.
	 *
	 * @var int
	 */
	private $root;

	/**
	 * What each plugin used.
	 *
	 * @var Usage
	 */
	private $usage;

	/**
	 * The queries by statement.
	 *
	 * @var Query_Groups
	 */
	private $groups;

	/**
	 * The slowest queries, with statements without values, unsorted.
	 *
	 * @var array[]
	 */
	private $slowest = array();

	/**
	 * The failed queries, with statements without values, and the error as data.
	 *
	 * @var array[]
	 */
	private $failed = array();

	/**
	 * Maximum number of slowest queries.
	 *
	 * @var int
	 */
	private $keep;

	/**
	 * Duration in seconds that a query must exceed to be among the slowest.
	 *
	 * @var float
	 */
	private $floor = -1.0;

	/**
	 * Total duration of the queries in seconds.
	 *
	 * @var float
	 */
	private $seconds = 0.0;

	/**
	 * Queries in wpdb's list since it was last read.
	 *
	 * @var int
	 */
	private $unread = 0;

	/**
	 * Number of entries already read of the list, and of wpdb's list of errors.
	 *
	 * @var int[]
	 */
	private $read = array( 0, 0 );

	/**
	 * Queries that were not grouped yet.
	 *
	 * @var array[]
	 */
	private $log = array();

	/**
	 * Statement without values => its attributes.
	 *
	 * @var array<string, array>
	 */
	private $described = array();

	/**
	 * The database system; null before it is needed.
	 *
	 * @var string|null
	 */
	private $system = null;

	/**
	 * Register the hooks.
	 *
	 * @param Trace $trace The trace for the spans.
	 * @param int   $root  The span of the request.
	 * @param Usage $usage What each plugin used.
	 */
	public function __construct( Trace $trace, $root, Usage $usage ) {
		$this->trace  = $trace;
		$this->usage  = $usage;
		$this->root   = $root;
		$this->groups = new Query_Groups();
		$this->keep   = (int) Settings::get( 'slowest_queries' );
		$mode         = Settings::get( 'database' );
		if ( 'off' === $mode ) {
			return;
		}
		$listed = defined( 'SAVEQUERIES' ) && SAVEQUERIES; // By wp-config.php: WordPress keeps a list.
		if ( 'timed' === $mode && $listed ) {
			add_filter( 'log_query_custom_data', array( $this, 'listed' ), PHP_INT_MAX );
		} elseif ( 'timed' !== $mode || defined( 'SAVEQUERIES' ) || ! Wpdb::install( $this ) ) {
			$this->keep = 0;
			add_filter( 'query', array( $this, 'counted' ), PHP_INT_MAX );
		}
	}

	/**
	 * Record a query that has run.
	 *
	 * @param string $sql     The statement.
	 * @param float  $seconds Its duration.
	 * @param string $caller  The function that ran it; '' if it is unknown.
	 * @param float  $start   Seconds since 1970.
	 * @param string $error   Message of the database; '' if it succeeded.
	 * @param array  $owner   Attributes of the plugin or theme.
	 */
	public function ran( $sql, $seconds, $caller, $start, $error, array $owner ) {
		$this->log[] = array( $sql, $seconds, $caller, $start, $error, $owner );
		if ( isset( $this->log[ self::CHUNK - 1 ] ) ) {
			$this->read();
		}
	}

	/**
	 * Count a query that WordPress adds to its list. Reading the list regularly keeps the work at the end small.
	 *
	 * @param array $data Data of plugins, returned unchanged.
	 * @return array
	 */
	public function listed( $data ) {
		if ( ++$this->unread >= self::CHUNK ) {
			$this->read();
		}
		return $data;
	}

	/**
	 * Record a query that is about to run.
	 *
	 * @param string $sql The statement.
	 * @return string
	 */
	public function counted( $sql ) {
		$this->ran( $sql, 0.0, '', 0.0, '', Owner::of_stack() );
		return $sql;
	}

	/**
	 * Write totals, spans and findings.
	 */
	public function finish() {
		$this->read();
		if ( $this->seconds > 0 ) {
			$this->trace->set(
				$this->root,
				array(
					'wordpress.db.duration_ms' => round( $this->seconds * 1000, 3 ),
					'wordpress.db.group_count' => $this->groups->count(),
				)
			);
		}
		foreach ( array_merge( $this->slowest, $this->failed ) as $query ) {
			$this->span( $query );
		}
		$this->repeated();
	}

	/**
	 * Group the new queries.
	 */
	private function read() {
		$queries   = $this->log;
		$this->log = array();
		foreach ( $queries ? $queries : $this->of_wordpress() as $query ) {
			$query[ self::SQL ] = Sql::shape( (string) $query[ self::SQL ] );
			$this->seconds     += $query[ self::SECONDS ];
			$this->groups->add( $query[ self::SQL ], $query[ self::SECONDS ], $query[ self::CALLERS ], $query[ self::OWNER ] );
			$this->usage->add( $query[ self::OWNER ], 'queries', 1 );
			if ( $query[ self::SECONDS ] > 0 ) {
				$this->usage->add( $query[ self::OWNER ], 'sql_ms', $query[ self::SECONDS ] * 1000 );
			}
			if ( '' !== $query[ self::ERROR ] && count( $this->failed ) < self::MAX_SPAN_ERRORS ) {
				$this->failed[] = $query;
			} elseif ( $query[ self::SECONDS ] > $this->floor && $this->keep ) {
				$this->slowest[] = $query;
			}
		}
		$this->cut();
	}

	/**
	 * Return the new entries of WordPress's list, each with the error of its statement or ''.
	 *
	 * @return array[]
	 */
	private function of_wordpress() {
		global $wpdb, $EZSQL_ERROR; // phpcs:ignore WordPress.NamingConventions.ValidVariableName -- wpdb's name for it.
		$this->unread = 0;
		$errors       = array();
		$found        = array();
		if ( ! isset( $wpdb->queries ) || ! is_array( $wpdb->queries ) ) {
			return $found;
		}
		foreach ( array_slice( (array) $EZSQL_ERROR, $this->read[1] ) as $error ) { // phpcs:ignore WordPress.NamingConventions.ValidVariableName
			++$this->read[1];
			$errors[ $error['query'] ] = $error['error_str'];
		}
		foreach ( array_slice( $wpdb->queries, $this->read[0] ) as $query ) {
			$query[ self::ERROR ] = isset( $errors[ $query[ self::SQL ] ] ) ? (string) $errors[ $query[ self::SQL ] ] : '';
			$query[ self::OWNER ] = array();
			$found[]              = $query;
		}
		$this->read[0] = count( $wpdb->queries );
		return $found;
	}

	/**
	 * Remove all but the slowest.
	 */
	private function cut() {
		if ( count( $this->slowest ) <= $this->keep ) {
			return;
		}
		usort(
			$this->slowest,
			static function ( $a, $b ) {
				return $b[ self::SECONDS ] <=> $a[ self::SECONDS ];
			}
		);
		$this->slowest = array_slice( $this->slowest, 0, $this->keep );
		$this->floor   = $this->slowest[ $this->keep - 1 ][ self::SECONDS ];
	}

	/**
	 * Record a span of a query.
	 *
	 * @param array $query From wpdb's list, with the statement without values, and the error of a failed one.
	 */
	private function span( array $query ) {
		$shape      = $query[ self::SQL ];
		$attributes = $this->describe( $shape ) + $query[ self::OWNER ] + array( 'code.function.name' => self::caller( $query[ self::CALLERS ] ) );
		$group = $this->groups->get( $shape );
		if ( $group[ Query_Groups::COUNT ] > 1 ) {
			$attributes['wordpress.db.group.query_count'] = $group[ Query_Groups::COUNT ];
			$attributes['wordpress.db.group.duration_ms'] = round( $group[ Query_Groups::SECONDS ] * 1000, 3 );
		}
		$began = Trace::nanoseconds( $query[ self::START ] );
		$end   = $began + (int) ( $query[ self::SECONDS ] * 1e9 );
		$span  = $this->trace->add( $attributes['db.query.summary'], Trace::CLIENT, $began, $end, $attributes, $this->trace->at( $began, $end ) );
		if ( '' !== $query[ self::ERROR ] ) {
			$this->trace->set( $span, array( 'error.type' => 'db_error' ) );
			$this->trace->fail( $span, Redact::text( Sql::message( $query[ self::ERROR ] ) ) );
		}
		if ( $query[ self::SECONDS ] * 1000 >= (int) Settings::get( 'slow_query_ms' ) ) {
			$this->trace->event( $span, 'wordpress.db.slow_query', array( 'wordpress.db.duration_ms' => round( $query[ self::SECONDS ] * 1000, 3 ) ) );
		}
	}

	/**
	 * Report statements that ran repeatedly, usually once for each row of another query.
	 *
	 * Statements for single options are excluded, and have attributes of their own: WordPress itself reads each option
	 * without autoload, and writes each option, with a statement.
	 */
	private function repeated() {
		global $wpdb;
		$options  = (string) $wpdb->options;
		$repeated = $this->groups->repeated( (int) Settings::get( 'n_plus_one' ), $options );
		$this->trace->set( $this->root, $this->groups->of_options( $options ) );
		foreach ( array_slice( $repeated, 0, 10, true ) as $shape => $group ) {
			$this->trace->event(
				$this->root,
				'wordpress.db.n_plus_one',
				$this->describe( (string) $shape ) + array( 'wordpress.db.query_count' => $group[ Query_Groups::COUNT ] ) + $group[ Query_Groups::OWNER ]
					+ ( '' === $group[ Query_Groups::CALLERS ] ? array() : array( // Of `counted`: time and caller are unknown.
						'wordpress.db.duration_ms' => round( $group[ Query_Groups::SECONDS ] * 1000, 3 ),
						'code.function.name'       => self::caller( $group[ Query_Groups::CALLERS ] ),
					) )
			);
		}
		if ( $repeated ) {
			$this->trace->set( $this->root, array( 'wordpress.db.n_plus_one_count' => count( $repeated ) ) );
		}
	}

	/**
	 * Return attributes of a statement by OpenTelemetry's conventions.
	 *
	 * @param string $shape The statement without values.
	 * @return array
	 */
	private function describe( $shape ) {
		global $wpdb;
		if ( isset( $this->described[ $shape ] ) ) {
			return $this->described[ $shape ];
		}
		list( $verb, $table ) = Sql::operation( $shape );

		$attributes = array(
			'db.system.name'   => $this->system(),
			'db.query.text'    => $shape,
			'db.query.summary' => Sql::summary( $verb, $table, $wpdb->prefix, $wpdb->base_prefix ),
		);
		if ( '' !== $verb ) {
			$attributes['db.operation.name'] = $verb;
		}
		if ( '' !== $table ) {
			$attributes['db.collection.name'] = $table;
		}
		$this->described[ $shape ] = $attributes;
		return $attributes;
	}

	/**
	 * Return the database system.
	 *
	 * @return string
	 */
	private function system() {
		global $wpdb;
		if ( null === $this->system ) {
			$this->system = 'other_sql';
			if ( isset( $wpdb->dbh ) && $wpdb->dbh instanceof \mysqli ) {
				$this->system = false === stripos( (string) $wpdb->db_server_info(), 'mariadb' ) ? 'mysql' : 'mariadb';
			}
		}
		return $this->system;
	}

	/**
	 * Return the caller.
	 *
	 * @param string $callers Functions, comma-separated, the nearest last.
	 * @return string
	 */
	private static function caller( $callers ) {
		$last = strrchr( $callers, ',' );
		return trim( false === $last ? $callers : substr( $last, 1 ) );
	}
}
