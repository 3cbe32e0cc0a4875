<?php
/**
 * OTLP.
 *
 * @package Otelwp
 */

namespace Otelwp;

// Calls of these functions are faster if PHP finds at compile time that they are not in this namespace.
use function chr;
use function is_bool;
use function is_float;
use function is_int;
use function is_string;
use function pack;
use function preg_match;
use function strlen;

defined( 'ABSPATH' ) || exit;

/**
 * Encodes a trace as the body of an OTLP export request (opentelemetry-proto, `ExportTraceServiceRequest`) in protobuf.
 *
 * Protobuf is preferred to JSON for the agent's sake: it has half the bytes, and the agent can forward it without
 * parsing everything. A protobuf message is a list of fields; each has a tag (its number and its type) and a value.
 */
final class Otlp {

	const IS_REMOTE_KNOWN  = 0x100; // Bits of a span's flags, in addition to those of traceparent.
	const PARENT_IS_REMOTE = 0x200;

	const MAX_VALUE = 2048; // Maximum bytes of a string.

	// Tags of `attributes` in Resource, Span and Event.
	const OF_RESOURCE = "\x0a";
	const OF_SPAN     = "\x4a";
	const OF_EVENT    = "\x1a";

	/**
	 * Key => value => encoded attribute: most attributes are in many spans of a page.
	 *
	 * @var array<string, array<string, string>>
	 */
	private static $known = array();

	/**
	 * Key => encoded beginning of an attribute with that key.
	 *
	 * @var array<string, string>
	 */
	private static $keys = array();

	/**
	 * Return the encoded trace.
	 *
	 * @param Trace  $trace A complete one.
	 * @param array  $site  Attributes of the resource, this site.
	 * @param string $state Its tracestate.
	 * @return string
	 */
	public static function encode( Trace $trace, array $site, $state ) {
		$ids         = str_split( random_bytes( 8 * max( 1, count( $trace->spans ) ) ), 8 ); // One call for all spans.
		foreach ( $trace->spans as $number => $span ) {
			if ( '' !== $span[ Trace::ID ] ) {
				$ids[ $number ] = hex2bin( $span[ Trace::ID ] );
			}
		}
		$caller   = '' === $trace->context->parent_id ? '' : "\x22\x08" . hex2bin( $trace->context->parent_id );
		$trace_id = "\x0a\x10" . hex2bin( $trace->context->trace_id );
		$state    = '' === $state ? '' : self::text( "\x1a", $state );
		$flags    = 1 | self::IS_REMOTE_KNOWN;
		$inner    = "\x85\x01" . pack( 'V', $flags );
		$first    = '' === $caller ? $inner : "\x85\x01" . pack( 'V', $flags | self::PARENT_IS_REMOTE );
		$names    = array();
		$last     = array();
		$spans    = self::field( "\x0a", self::text( "\x0a", 'otelwp' ) . self::text( "\x12", OTELWP_VERSION ) );
		foreach ( $trace->spans as $number => $span ) {
			$parent = $span[ Trace::PARENT ];
			$name   = $span[ Trace::NAME ];
			if ( ! isset( $names[ $name ] ) ) {
				$names[ $name ] = self::text( "\x2a", $name );
				$last[ $name ]  = array( array(), '' );
			}
			if ( $last[ $name ][0] !== $span[ Trace::ATTR ] ) { // Repeated executions of a statement have equal attributes.
				$last[ $name ] = array( $span[ Trace::ATTR ], self::attributes( self::OF_SPAN, $span[ Trace::ATTR ] ) );
			}
			$out = $trace_id . "\x12\x08" . $ids[ $number ] . $state
				. ( Trace::NONE === $parent ? $caller : "\x22\x08" . $ids[ $parent ] )
				. $names[ $name ] . "\x30" . chr( $span[ Trace::KIND ] )
				. "\x39" . pack( 'P', $span[ Trace::START ] ) . "\x41" . pack( 'P', max( $span[ Trace::START ], $span[ Trace::END ] ) )
				. $last[ $name ][1];
			foreach ( $span[ Trace::EVENTS ] as $event ) {
				$out .= self::field( "\x5a", "\x09" . pack( 'P', $event[0] ) . self::text( "\x12", $event[1] ) . self::attributes( self::OF_EVENT, $event[2] ) );
			}
			if ( 0 === $number && null !== $trace->context->link ) {
				$out .= self::link( $trace->context->link );
			}
			if ( null !== $span[ Trace::ERROR ] ) {
				$out .= self::field( "\x7a", self::text( "\x12", $span[ Trace::ERROR ] ) . "\x18\x02" );
			}
			$out   .= Trace::NONE === $parent ? $first : $inner;
			$spans .= "\x12" . self::varint( strlen( $out ) ) . $out;
		}
		self::$known = array();
		return self::field( "\x0a", self::field( "\x0a", self::attributes( self::OF_RESOURCE, $site ) ) . self::field( "\x12", $spans ) );
	}

	/**
	 * Encode a link to the span of a caller.
	 *
	 * @param Trace_Context $caller The context from its headers.
	 * @return string
	 */
	private static function link( Trace_Context $caller ) {
		$state = $caller->tracestate( isset( $caller->ot['th'] ) ? $caller->ot['th'] : null );
		$flags = ( $caller->sampled ? 1 : 0 ) | self::IS_REMOTE_KNOWN | self::PARENT_IS_REMOTE;
		return self::field(
			"\x6a",
			"\x0a\x10" . hex2bin( $caller->trace_id ) . "\x12\x08" . hex2bin( $caller->parent_id )
				. ( '' === $state ? '' : self::text( "\x1a", $state ) ) . "\x35" . pack( 'V', $flags )
		);
	}

	/**
	 * Encode attributes. Most of the time is spent here, so the frequent cases are written inline.
	 *
	 * @param string $tag        Tag of the field with the attributes.
	 * @param array  $attributes Key => string, int, float, bool or list of strings.
	 * @return string
	 */
	private static function attributes( $tag, array $attributes ) {
		$out   = '';
		$known = &self::$known;
		foreach ( $attributes as $key => $value ) {
			if ( is_string( $value ) ) {
				if ( ! isset( $known[ $key ][ $value ] ) ) {
					$known[ $key ][ $value ] = self::attribute( $key, self::text( "\x0a", $value ) );
				}
				$out .= $tag . $known[ $key ][ $value ];
				continue;
			}
			if ( is_int( $value ) ) {
				$value = "\x18" . ( $value >= 0 && $value < 128 ? chr( $value ) : self::varint( $value ) );
			} elseif ( is_float( $value ) ) {
				$value = "\x21" . pack( 'e', $value );
			} elseif ( is_bool( $value ) ) {
				$value = $value ? "\x10\x01" : "\x10\x00";
			} else {
				$list = '';
				foreach ( (array) $value as $item ) {
					$list .= self::field( "\x0a", self::text( "\x0a", is_scalar( $item ) ? (string) $item : '' ) );
				}
				$value = self::field( "\x2a", $list );
			}
			$out .= $tag . self::attribute( $key, $value );
		}
		return $out;
	}

	/**
	 * Encode an attribute without its tag.
	 *
	 * @param string $key   Its key.
	 * @param string $value Its AnyValue.
	 * @return string
	 */
	private static function attribute( $key, $value ) {
		if ( ! isset( self::$keys[ $key ] ) ) {
			self::$keys[ $key ] = self::text( "\x0a", (string) $key ) . "\x12";
		}
		$size = strlen( $value );
		$pair = self::$keys[ $key ] . ( $size < 128 ? chr( $size ) : self::varint( $size ) ) . $value;
		$size = strlen( $pair );
		return ( $size < 128 ? chr( $size ) : self::varint( $size ) ) . $pair;
	}

	/**
	 * Encode a field with text. Invalid UTF-8 is replaced, because receivers would refuse the whole message; so are NUL
	 * bytes, which some databases of backends cannot store.
	 *
	 * @param string $tag  Of the field.
	 * @param string $text Anything.
	 * @return string
	 */
	private static function text( $tag, $text ) {
		if ( isset( $text[ self::MAX_VALUE ] ) ) {
			$text = substr( $text, 0, self::MAX_VALUE );
		}
		if ( ! preg_match( '//u', $text ) ) {
			// phpcs:ignore WordPress.WP.AlternativeFunctions.json_encode_json_encode -- wp_json_encode() does not support this flag.
			$text = (string) json_decode( (string) json_encode( $text, JSON_INVALID_UTF8_SUBSTITUTE ) );
		}
		$text = str_replace( "\0", "\u{FFFD}", $text );
		return self::field( $tag, $text );
	}

	/**
	 * Encode a field with a length.
	 *
	 * @param string $tag  Of the field.
	 * @param string $data What it holds.
	 * @return string
	 */
	private static function field( $tag, $data ) {
		$size = strlen( $data );
		return $tag . ( $size < 128 ? chr( $size ) : self::varint( $size ) ) . $data;
	}

	/**
	 * Encode a number as varint: seven bits in each byte.
	 *
	 * @param int $number Any; one below 0 takes ten bytes.
	 * @return string
	 */
	private static function varint( $number ) {
		$out = '';
		while ( $number < 0 || $number > 127 ) {
			$out   .= chr( $number & 127 | 128 );
			$number = $number >> 7 & PHP_INT_MAX >> 6; // Shift in zeros instead of the sign.
		}
		return $out . chr( $number );
	}
}
