<?php
/**
 * Database queries.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Settings;
use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Counts and times queries, groups them by their shape, and makes spans of the slowest and of those that failed.
 *
 * The class wpdb times queries if SAVEQUERIES is true when a query runs, and then tells each to a filter. So `timed` defines it,
 * for the requests that are recorded, unless wp-config.php has. Where wp-config.php says false, and with `counted`, the
 * filter `query` still shows each statement: then there are groups and numbers, and neither times nor spans.
 */
final class Database {

	const MAX_GROUPS = 500;

	const MAX_SPAN_ERRORS = 10;

	const KEEP = 1000; // Queries that wpdb may hold in memory, if it was us who made it keep them.

	/**
	 * Where spans go.
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
	 * Shape => number, seconds, who asked last.
	 *
	 * @var array<string, array>
	 */
	private $groups = array();

	/**
	 * The slowest: start, seconds, shape, parent, who asked. In no order.
	 *
	 * @var array[]
	 */
	private $slowest = array();

	/**
	 * Those that failed: the same, and the error's number.
	 *
	 * @var array[]
	 */
	private $failed = array();

	/**
	 * How many to keep of the slowest.
	 *
	 * @var int
	 */
	private $keep;

	/**
	 * Seconds below which a query is not among the slowest.
	 *
	 * @var float
	 */
	private $floor = -1.0;

	/**
	 * Number of queries seen.
	 *
	 * @var int
	 */
	private $count = 0;

	/**
	 * Seconds they took.
	 *
	 * @var float
	 */
	private $seconds = 0.0;

	/**
	 * Which database this is; null before somebody asked.
	 *
	 * @var string|null
	 */
	private $system = null;

	/**
	 * Whether we made wpdb keep its queries.
	 *
	 * @var bool
	 */
	private $ours = false;

	/**
	 * Watch.
	 *
	 * @param Trace $trace Where spans go.
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
			add_filter( 'log_query_custom_data', array( $this, 'timed' ), PHP_INT_MAX, 5 );
		} else {
			add_filter( 'query', array( $this, 'counted' ), PHP_INT_MAX );
		}
	}

	/**
	 * Note a query that ran.
	 *
	 * @param array  $data    What plugins say of it; ours to return.
	 * @param string $sql     The statement.
	 * @param float  $seconds It took.
	 * @param string $callers Functions, comma-separated, the nearest last.
	 * @param float  $start   Seconds since 1970.
	 * @return array
	 */
	public function timed( $data, $sql, $seconds, $callers, $start ) {
		global $wpdb;
		++$this->count;
		$this->seconds += $seconds;
		$shape          = Sql::shape( (string) $sql );
		$this->group( $shape, $seconds, $callers );
		$error = isset( $wpdb->dbh ) && $wpdb->dbh instanceof \mysqli ? mysqli_errno( $wpdb->dbh ) : 0; // phpcs:ignore WordPress.DB.RestrictedFunctions -- wpdb tells it only later, and only in words.
		$entry = array( $start, $seconds, $shape, $this->trace->current(), $callers, $error );
		if ( $error ) {
			if ( count( $this->failed ) < self::MAX_SPAN_ERRORS ) {
				$this->failed[] = $entry;
			}
		} elseif ( $seconds > $this->floor && $this->keep ) {
			$this->slowest[] = $entry;
			if ( count( $this->slowest ) >= 2 * $this->keep ) {
				$this->cut();
			}
		}
		if ( $this->ours && is_array( $wpdb->queries ) && count( $wpdb->queries ) >= self::KEEP ) {
			$wpdb->queries = array(); // A long import must not end for want of memory because it is watched.
		}
		return $data;
	}

	/**
	 * Note a query that is about to run.
	 *
	 * @param string $sql The statement.
	 * @return string
	 */
	public function counted( $sql ) {
		++$this->count;
		$this->group( Sql::shape( (string) $sql ), 0.0, '' );
		return $sql;
	}

	/**
	 * Write totals, spans and findings.
	 */
	public function finish() {
		if ( $this->seconds > 0 ) {
			$this->trace->set(
				$this->root,
				array(
					'wordpress.db.duration_ms' => round( $this->seconds * 1000, 3 ),
					'wordpress.db.group_count' => count( $this->groups ),
				)
			);
		}
		$this->cut();
		foreach ( array_merge( $this->slowest, $this->failed ) as $entry ) {
			$this->span( $entry );
		}
		$this->repeated();
	}

	/**
	 * Add a query to its group.
	 *
	 * @param string $shape   Of it.
	 * @param float  $seconds It took.
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
	 * Let go of all but the slowest.
	 */
	private function cut() {
		if ( count( $this->slowest ) <= $this->keep ) {
			return;
		}
		usort(
			$this->slowest,
			static function ( $a, $b ) {
				return $b[1] <=> $a[1];
			}
		);
		$this->slowest = array_slice( $this->slowest, 0, $this->keep );
		$this->floor   = $this->slowest[ $this->keep - 1 ][1];
	}

	/**
	 * Make a span of a query.
	 *
	 * @param array $entry Start, seconds, shape, parent, callers, error.
	 */
	private function span( array $entry ) {
		list( $start, $seconds, $shape, $parent, $callers, $error ) = $entry;

		$attributes = $this->describe( $shape ) + array( 'code.function.name' => self::caller( $callers ) );
		if ( isset( $this->groups[ $shape ] ) && $this->groups[ $shape ][0] > 1 ) {
			$attributes['wordpress.db.group.query_count'] = $this->groups[ $shape ][0];
			$attributes['wordpress.db.group.duration_ms'] = round( $this->groups[ $shape ][1] * 1000, 3 );
		}
		$began = Trace::nanoseconds( $start );
		$span  = $this->trace->add( $attributes['db.query.summary'], Trace::CLIENT, $began, $began + (int) ( $seconds * 1e9 ), $attributes, $parent );
		if ( $error ) {
			$this->trace->set(
				$span,
				array(
					'db.response.status_code' => (string) $error,
					'error.type'              => (string) $error,
				)
			);
			$this->trace->fail( $span );
		}
		if ( $seconds * 1000 >= (int) Settings::get( 'slow_query_ms' ) ) {
			$this->trace->event( $span, 'wordpress.db.slow_query', array( 'wordpress.db.duration_ms' => round( $seconds * 1000, 3 ) ) );
		}
	}

	/**
	 * Tell of statements that ran again and again: one for each row of another, most likely.
	 *
	 * Options that are looked up one by one are no such thing. They are those that are not autoloaded, and have a number
	 * of their own.
	 */
	private function repeated() {
		$least    = (int) Settings::get( 'n_plus_one' );
		$repeated = array();
		foreach ( $this->groups as $shape => $group ) {
			if ( 'get_option' === self::caller( $group[2] ) ) {
				$this->trace->set( $this->root, array( 'wordpress.db.option_lookups' => $group[0] ) );
			} elseif ( $group[0] >= $least ) {
				$repeated[ $shape ] = $group;
			}
		}
		foreach ( array_slice( $repeated, 0, 10, true ) as $shape => $group ) {
			$this->trace->event(
				$this->root,
				'wordpress.db.n_plus_one',
				$this->describe( (string) $shape ) + array(
					'wordpress.db.query_count' => $group[0],
					'wordpress.db.duration_ms' => round( $group[1] * 1000, 3 ),
					'code.function.name'       => self::caller( $group[2] ),
				)
			);
		}
		if ( $repeated ) {
			$this->trace->set( $this->root, array( 'wordpress.db.n_plus_one_count' => count( $repeated ) ) );
		}
	}

	/**
	 * Describe a statement by OpenTelemetry's conventions.
	 *
	 * @param string $shape Of it.
	 * @return array
	 */
	private function describe( $shape ) {
		global $wpdb;
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
		return $attributes;
	}

	/**
	 * Return which database this is.
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
	 * Return who asked.
	 *
	 * @param string $callers Functions, comma-separated, the nearest last.
	 * @return string
	 */
	private static function caller( $callers ) {
		$last = strrchr( $callers, ',' );
		return trim( false === $last ? $callers : substr( $last, 1 ) );
	}
}
