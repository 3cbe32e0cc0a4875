<?php
/**
 * The spans of one request.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Collects spans in memory, in arrays rather than objects, because these are faster.
 *
 * A span is identified by its number. Spans beyond the limit are counted and have the number NONE, which every method
 * accepts and ignores. An open span is on a stack: it is the parent of spans that are added before it is closed.
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
	const END    = 3; // Nanoseconds since 1970; 0 while it is open.
	const PARENT = 4; // A span, or NONE.
	const ATTR   = 5; // Key => string, int, float, bool or list of strings.
	const EVENTS = 6; // Lists of time, name, attributes.
	const ERROR  = 7; // Null, or the error message; '' for an error without a message.
	const ID     = 8; // 16 hex digits; '' until it is needed.

	/**
	 * The context of the caller.
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
	 * Number of spans beyond the limit.
	 *
	 * @var int
	 */
	public $dropped = 0;

	/**
	 * Numbers of the open spans, the innermost last.
	 *
	 * @var int[]
	 */
	private $open = array();

	/**
	 * Numbers of the spans that may have children.
	 *
	 * @var int[]
	 */
	private $inner = array();

	/**
	 * Maximum number of spans.
	 *
	 * @var int
	 */
	private $limit;

	/**
	 * Nanoseconds from the monotonic clock to the time since 1970.
	 *
	 * @var int
	 */
	private $offset;

	/**
	 * Start a trace.
	 *
	 * @param Trace_Context $context Context of the caller.
	 * @param int           $limit   Maximum number of spans.
	 */
	public function __construct( Trace_Context $context, $limit ) {
		$this->context = $context;
		$this->limit   = $limit;
		$this->offset  = self::nanoseconds( microtime( true ) ) - hrtime( true );
	}

	/**
	 * Return nanoseconds since 1970, from a clock that is not adjusted during a request.
	 *
	 * @return int
	 */
	public function now() {
		return $this->offset + hrtime( true );
	}

	/**
	 * Convert PHP's time to nanoseconds. A double has a precision of microseconds.
	 *
	 * @param float $seconds Since 1970.
	 * @return int
	 */
	public static function nanoseconds( $seconds ) {
		return (int) round( $seconds * 1e6 ) * 1000;
	}

	/**
	 * Open a child span of the innermost open span.
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
	 * Close a span, and all spans that are still open within it.
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
	 * Add a span that does not become a parent: a finished one, or one that finish() ends.
	 *
	 * @param string   $name   Of low cardinality.
	 * @param int      $kind   INTERNAL, SERVER or CLIENT.
	 * @param int      $start  Nanoseconds since 1970.
	 * @param int      $end    Nanoseconds since 1970; 0 if it has not ended.
	 * @param array    $attr   Attributes.
	 * @param int|null $within The parent; the innermost open span if null.
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
	 * End a span that was added before its end.
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
	 * Return the innermost open span.
	 *
	 * @return int
	 */
	public function current() {
		return $this->open ? $this->open[ count( $this->open ) - 1 ] : self::NONE;
	}

	/**
	 * Return the innermost span that covers a time interval, for work that is reported after its end.
	 *
	 * @param int $start Nanoseconds since 1970.
	 * @param int $end   Nanoseconds since 1970.
	 * @return int
	 */
	public function at( $start, $end ) {
		$found = self::NONE;
		foreach ( $this->inner as $number ) {
			$span = $this->spans[ $number ];
			// Of two matching spans the later one is inside the other. The two clocks may differ by a microsecond.
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
	 * Rename a span.
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
	 * Add an event to a span, up to 32 events.
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
	 * Mark a span as failed.
	 *
	 * @param int    $span    The span.
	 * @param string $message Description of the error; '' if the attributes are sufficient.
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
	 * End all spans that are still open, the request last.
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
