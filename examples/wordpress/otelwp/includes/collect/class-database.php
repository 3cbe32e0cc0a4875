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
 * The class wpdb times queries and keeps them in a list if SAVEQUERIES is true. So `timed` defines it for recorded
 * requests, unless wp-config.php has. The list is read at the end, or when it is long, so that a query costs only a
 * counter while a page is generated. If wp-config.php sets it to false, and with `counted`, statements are read from
 * the filter `query`: then there are groups and counts, but no times and spans.
 */
final class Database {

	const MAX_GROUPS = 500;

	const MAX_SPAN_ERRORS = 10;

	const CHUNK = 500; // Number of queries after which the list is read, and cleared if this class enabled it.

	// The fields of a query in wpdb's list.
	const SQL     = 0;
	const SECONDS = 1;
	const CALLERS = 2; // Functions, comma-separated, the nearest last.
	const START   = 3; // Seconds since 1970.

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
	 * Statement without values => count, seconds, last caller.
	 *
	 * @var array<string, array>
	 */
	private $groups = array();

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
	 * Queries since the list was last read.
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
	 * Statements of `counted` that were not grouped yet.
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
	 * Whether this class enabled wpdb's list.
	 *
	 * @var bool
	 */
	private $ours = false;

	/**
	 * Register the hooks.
	 *
	 * @param Trace $trace The trace for the spans.
	 * @param int   $root  The span of the request.
	 */
	public function __construct( Trace $trace, $root ) {
		$this->trace = $trace;
		$this->root  = $root;
		$this->keep  = (int) Settings::get( 'slowest_queries' );
		$mode        = Settings::get( 'database' );
		if ( 'off' === $mode ) {
			return;
		}
		if ( 'timed' === $mode && ! defined( 'SAVEQUERIES' ) ) {
			define( 'SAVEQUERIES', true ); // phpcs:ignore WordPress.NamingConventions.PrefixAllGlobals -- wpdb's own switch.
			$this->ours = true;
		}
		if ( 'timed' === $mode && SAVEQUERIES ) {
			// If wp-config.php enables the list, its readers need the whole stack in it.
			if ( ! $this->ours || ! Wpdb::install( $this ) ) {
				add_filter( 'log_query_custom_data', array( $this, 'timed' ), PHP_INT_MAX );
			}
		} else {
			$this->keep = 0;
			add_filter( 'query', array( $this, 'counted' ), PHP_INT_MAX );
		}
	}

	/**
	 * Count a finished query. Reading the list regularly bounds memory during long imports.
	 */
	public function ran() {
		if ( ++$this->unread >= self::CHUNK ) {
			$this->read();
		}
	}

	/**
	 * Count a finished query.
	 *
	 * @param array $data Data of plugins, returned unchanged.
	 * @return array
	 */
	public function timed( $data ) {
		$this->ran();
		return $data;
	}

	/**
	 * Record a query that is about to run.
	 *
	 * @param string $sql The statement.
	 * @return string
	 */
	public function counted( $sql ) {
		$this->log[] = array( $sql, 0.0, '', 0.0 );
		if ( isset( $this->log[ self::CHUNK - 1 ] ) ) {
			$this->read();
		}
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
					'wordpress.db.group_count' => count( $this->groups ),
				)
			);
		}
		foreach ( array_merge( $this->slowest, $this->failed ) as $query ) {
			$this->span( $query );
		}
		$this->repeated();
	}

	/**
	 * Read the new entries of wpdb's list, or of the own log.
	 */
	private function read() {
		global $wpdb, $EZSQL_ERROR; // phpcs:ignore WordPress.NamingConventions.ValidVariableName -- wpdb's name for it.
		$this->unread = 0;
		$queries      = $this->log;
		$errors       = array();
		$this->log    = array();
		if ( ! $queries && isset( $wpdb->queries ) && is_array( $wpdb->queries ) ) {
			$queries       = $this->read[0] ? array_slice( $wpdb->queries, $this->read[0] ) : $wpdb->queries;
			$this->read[0] = count( $wpdb->queries );
			if ( $this->ours && $this->read[0] >= self::CHUNK ) {
				$wpdb->queries = array();
				$this->read[0] = 0;
			}
			foreach ( array_slice( (array) $EZSQL_ERROR, $this->read[1] ) as $error ) { // phpcs:ignore WordPress.NamingConventions.ValidVariableName
				++$this->read[1];
				$errors[ $error['query'] ] = $error['error_str'];
			}
		}
		foreach ( $queries as $query ) {
			$sql                = (string) $query[ self::SQL ];
			$query[ self::SQL ] = Sql::shape( $sql );
			$this->seconds     += $query[ self::SECONDS ];
			$this->group( $query[ self::SQL ], $query[ self::SECONDS ], $query[ self::CALLERS ] );
			if ( isset( $errors[ $sql ] ) && count( $this->failed ) < self::MAX_SPAN_ERRORS ) {
				$this->failed[] = array_slice( $query, 0, 4 ) + array( 4 => $errors[ $sql ] );
			} elseif ( $query[ self::SECONDS ] > $this->floor && $this->keep ) {
				$this->slowest[] = $query;
			}
		}
		$this->cut();
	}

	/**
	 * Add a query to its group.
	 *
	 * @param string $shape   The statement without values.
	 * @param float  $seconds Its duration.
	 * @param string $callers Functions, the nearest last.
	 */
	private function group( $shape, $seconds, $callers ) {
		if ( isset( $this->groups[ $shape ] ) ) {
			++$this->groups[ $shape ][0];
			$this->groups[ $shape ][1] += $seconds;
			$this->groups[ $shape ][2]  = $callers;
		} elseif ( count( $this->groups ) < self::MAX_GROUPS ) {
			$this->groups[ $shape ] = array( 1, $seconds, $callers );
		}
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
		$attributes = $this->describe( $shape );

		$attributes['code.function.name'] = self::caller( $query[ self::CALLERS ] );
		if ( isset( $this->groups[ $shape ] ) && $this->groups[ $shape ][0] > 1 ) {
			$attributes['wordpress.db.group.query_count'] = $this->groups[ $shape ][0];
			$attributes['wordpress.db.group.duration_ms'] = round( $this->groups[ $shape ][1] * 1000, 3 );
		}
		$began = Trace::nanoseconds( $query[ self::START ] );
		$end   = $began + (int) ( $query[ self::SECONDS ] * 1e9 );
		$span  = $this->trace->add( $attributes['db.query.summary'], Trace::CLIENT, $began, $end, $attributes, $this->trace->at( $began, $end ) );
		if ( isset( $query[4] ) && is_string( $query[4] ) ) {
			$this->trace->set( $span, array( 'error.type' => 'db_error' ) );
			$this->trace->fail( $span, Redact::text( Sql::message( $query[4] ) ) );
		}
		if ( $query[ self::SECONDS ] * 1000 >= (int) Settings::get( 'slow_query_ms' ) ) {
			$this->trace->event( $span, 'wordpress.db.slow_query', array( 'wordpress.db.duration_ms' => round( $query[ self::SECONDS ] * 1000, 3 ) ) );
		}
	}

	/**
	 * Report statements that ran repeatedly, usually once for each row of another query.
	 *
	 * Lookups of single options are excluded. They are options without autoload, and have an attribute of their own.
	 */
	private function repeated() {
		global $wpdb;
		$lookup   = 'SELECT option_value FROM ' . $wpdb->options . ' WHERE option_name = ?';
		$least    = (int) Settings::get( 'n_plus_one' );
		$repeated = array();
		foreach ( $this->groups as $shape => $group ) {
			if ( 0 === strpos( $shape, $lookup ) ) {
				$this->trace->set( $this->root, array( 'wordpress.db.option_lookups' => $group[0] ) );
			} elseif ( $group[0] >= $least ) {
				$repeated[ $shape ] = $group;
			}
		}
		foreach ( array_slice( $repeated, 0, 10, true ) as $shape => $group ) {
			$this->trace->event(
				$this->root,
				'wordpress.db.n_plus_one',
				$this->describe( (string) $shape ) + array( 'wordpress.db.query_count' => $group[0] )
					+ ( '' === $group[2] ? array() : array( // Of `counted`: time and caller are unknown.
						'wordpress.db.duration_ms' => round( $group[1] * 1000, 3 ),
						'code.function.name'       => self::caller( $group[2] ),
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
