<?php
/**
 * The spans of one request.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Collects spans in memory: arrays rather than objects, for a page pays for each.
 *
 * A span is its number. Spans beyond the limit are counted and have the number NONE, which every method takes and
 * ignores. A span that was opened lies on a stack: it is the parent of what comes before it is closed.
 */
final class Trace {

	const NONE = -1;

	const INTERNAL = 1;
	const SERVER   = 2;
	const CLIENT   = 3;

	// The fields of a span.
	const NAME   = 0;
	const KIND   = 1;
	const START  = 2; // Nanoseconds since 1970.
	const END    = 3; // The same; 0 while it is open.
	const PARENT = 4; // A span, or NONE.
	const ATTR   = 5; // Key => string, int, float, bool or list of strings.
	const EVENTS = 6; // Lists of time, name, attributes.
	const ERROR  = 7; // Null, or what went wrong; '' if there is nothing to say about it.
	const ID     = 8; // 16 hex digits; '' until somebody asks.

	/**
	 * Who called.
	 *
	 * @var Trace_Context
	 */
	public $context;

	/**
	 * The spans, by number. The first is the request's.
	 *
	 * @var array[]
	 */
	public $spans = array();

	/**
	 * Spans beyond the limit.
	 *
	 * @var int
	 */
	public $dropped = 0;

	/**
	 * Numbers of the spans that are open, the innermost last.
	 *
	 * @var int[]
	 */
	private $open = array();

	/**
	 * Numbers of the spans that may have others within them.
	 *
	 * @var int[]
	 */
	private $inner = array();

	/**
	 * Most spans that are kept.
	 *
	 * @var int
	 */
	private $limit;

	/**
	 * Nanoseconds to add to the monotonic clock to have those since 1970.
	 *
	 * @var int
	 */
	private $offset;

	/**
	 * Begin a trace.
	 *
	 * @param Trace_Context $context Who called.
	 * @param int           $limit   Most spans.
	 */
	public function __construct( Trace_Context $context, $limit ) {
		$this->context = $context;
		$this->limit   = $limit;
		$this->offset  = self::nanoseconds( microtime( true ) ) - hrtime( true );
	}

	/**
	 * Return nanoseconds since 1970, of a clock that nobody sets during a request.
	 *
	 * @return int
	 */
	public function now() {
		return $this->offset + hrtime( true );
	}

	/**
	 * Turn PHP's time into nanoseconds. Microseconds are what a double holds of it.
	 *
	 * @param float $seconds Since 1970.
	 * @return int
	 */
	public static function nanoseconds( $seconds ) {
		return (int) round( $seconds * 1e6 ) * 1000;
	}

	/**
	 * Open a span within the one opened last.
	 *
	 * @param string   $name  Of low cardinality.
	 * @param int      $kind  INTERNAL, SERVER or CLIENT.
	 * @param array    $attr  Attributes.
	 * @param int|null $start Nanoseconds since 1970; now if null.
	 * @return int
	 */
	public function open( $name, $kind = self::INTERNAL, array $attr = array(), $start = null ) {
		$span = $this->add( $name, $kind, null === $start ? $this->now() : $start, 0, $attr );
		if ( self::NONE !== $span ) {
			$this->open[] = $span;
		}
		return $span;
	}

	/**
	 * Close a span, and those that were opened within it and forgotten.
	 *
	 * @param int   $span From open().
	 * @param array $attr More attributes.
	 */
	public function close( $span, array $attr = array() ) {
		if ( self::NONE === $span || ! in_array( $span, $this->open, true ) ) {
			return;
		}
		$now = $this->now();
		do {
			$last                              = array_pop( $this->open );
			$this->spans[ $last ][ self::END ] = $now;
		} while ( $last !== $span );
		if ( $attr ) {
			$this->set( $span, $attr );
		}
	}

	/**
	 * Add a span that does not become a parent: one that is over, or one that finish() ends.
	 *
	 * @param string   $name   Of low cardinality.
	 * @param int      $kind   INTERNAL, SERVER or CLIENT.
	 * @param int      $start  Nanoseconds since 1970.
	 * @param int      $end    The same; 0 if it goes on.
	 * @param array    $attr   Attributes.
	 * @param int|null $within The span that it belongs to; the one opened last if null.
	 * @return int
	 */
	public function add( $name, $kind, $start, $end, array $attr, $within = null ) {
		$number = count( $this->spans );
		if ( $number >= $this->limit ) {
			++$this->dropped;
			return self::NONE;
		}
		$this->spans[] = array( $name, $kind, $start, $end, null === $within ? $this->current() : $within, $attr, array(), null, '' );
		if ( self::CLIENT !== $kind ) {
			$this->inner[] = $number;
		}
		return $number;
	}

	/**
	 * End a span that was added while it went on.
	 *
	 * @param int   $span From add().
	 * @param array $attr More attributes.
	 */
	public function finish( $span, array $attr = array() ) {
		if ( self::NONE !== $span ) {
			$this->spans[ $span ][ self::END ] = $this->now();
			$this->set( $span, $attr );
		}
	}

	/**
	 * Return the span opened last.
	 *
	 * @return int
	 */
	public function current() {
		return $this->open ? $this->open[ count( $this->open ) - 1 ] : self::NONE;
	}

	/**
	 * Return the innermost span that lasted from one time to another: who did something that is told only later.
	 *
	 * @param int $start Nanoseconds since 1970.
	 * @param int $end   The same.
	 * @return int
	 */
	public function at( $start, $end ) {
		$found = self::NONE;
		foreach ( $this->inner as $number ) {
			$span = $this->spans[ $number ];
			// Of two that fit, the later one lies within the other; a microsecond is what the two clocks may differ.
			if ( $span[ self::START ] <= $start + 1000 && ( 0 === $span[ self::END ] || $span[ self::END ] >= $end - 1000 )
				&& ( self::NONE === $found || $span[ self::START ] >= $this->spans[ $found ][ self::START ] )
			) {
				$found = $number;
			}
		}
		return $found;
	}

	/**
	 * Add attributes to a span, or replace them.
	 *
	 * @param int   $span The span.
	 * @param array $attr Attributes.
	 */
	public function set( $span, array $attr ) {
		if ( self::NONE !== $span && $attr ) {
			$this->spans[ $span ][ self::ATTR ] = $attr + $this->spans[ $span ][ self::ATTR ];
		}
	}

	/**
	 * Name a span anew.
	 *
	 * @param int    $span The span.
	 * @param string $name Of low cardinality.
	 */
	public function rename( $span, $name ) {
		if ( self::NONE !== $span ) {
			$this->spans[ $span ][ self::NAME ] = $name;
		}
	}

	/**
	 * Tell of something that happened during a span. A span takes 32 of them.
	 *
	 * @param int    $span The span.
	 * @param string $name Of low cardinality.
	 * @param array  $attr Attributes.
	 */
	public function event( $span, $name, array $attr = array() ) {
		if ( self::NONE !== $span && count( $this->spans[ $span ][ self::EVENTS ] ) < 32 ) {
			$this->spans[ $span ][ self::EVENTS ][] = array( $this->now(), $name, $attr );
		}
	}

	/**
	 * Say that what a span stands for went wrong.
	 *
	 * @param int    $span    The span.
	 * @param string $message What a person should read; '' if the attributes say it all.
	 */
	public function fail( $span, $message = '' ) {
		if ( self::NONE !== $span ) {
			$this->spans[ $span ][ self::ERROR ] = $message;
		}
	}

	/**
	 * Return the id of a span.
	 *
	 * @param int $span The span.
	 * @return string 16 hex digits.
	 */
	public function id( $span ) {
		if ( self::NONE === $span ) {
			return bin2hex( random_bytes( 8 ) );
		}
		if ( '' === $this->spans[ $span ][ self::ID ] ) {
			$this->spans[ $span ][ self::ID ] = bin2hex( random_bytes( 8 ) );
		}
		return $this->spans[ $span ][ self::ID ];
	}

	/**
	 * End everything that still goes on, the request last.
	 */
	public function complete() {
		$now = $this->now();
		foreach ( $this->spans as $number => $span ) {
			if ( 0 === $span[ self::END ] ) {
				$this->spans[ $number ][ self::END ] = $now;
			}
		}
		$this->open = array();
	}
}
