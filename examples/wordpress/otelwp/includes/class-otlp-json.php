<?php
/**
 * OTLP/JSON.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Writes a trace as the body of an OTLP export request (opentelemetry-proto, `ExportTraceServiceRequest`) in JSON.
 */
final class Otlp_Json {

	const IS_REMOTE_KNOWN  = 0x100; // Bits of a span's flags, beside those of traceparent.
	const PARENT_IS_REMOTE = 0x200;

	/**
	 * Return the body.
	 *
	 * @param Trace  $trace    A complete one.
	 * @param array  $site  Attributes of the resource, this site.
	 * @param string $state    Its tracestate.
	 * @return string
	 */
	public static function encode( Trace $trace, array $site, $state ) {
		$ids    = str_split( bin2hex( random_bytes( 8 * count( $trace->spans ) ) ), 16 ); // One call for all.
		$remote = '' !== $trace->context->parent_id;
		foreach ( $trace->spans as $number => $span ) {
			if ( '' !== $span[ Trace::ID ] ) {
				$ids[ $number ] = $span[ Trace::ID ];
			}
		}
		$spans = array();
		foreach ( $trace->spans as $number => $span ) {
			$parent = $span[ Trace::PARENT ];
			$out    = array(
				'traceId'           => $trace->context->trace_id,
				'spanId'            => $ids[ $number ],
				'parentSpanId'      => Trace::NONE === $parent ? $trace->context->parent_id : $ids[ $parent ],
				'flags'             => 1 | self::IS_REMOTE_KNOWN | ( Trace::NONE === $parent && $remote ? self::PARENT_IS_REMOTE : 0 ),
				'name'              => $span[ Trace::NAME ],
				'kind'              => $span[ Trace::KIND ],
				'startTimeUnixNano' => (string) $span[ Trace::START ],
				'endTimeUnixNano'   => (string) max( $span[ Trace::START ], $span[ Trace::END ] ),
			);
			if ( '' !== $state ) {
				$out['traceState'] = $state;
			}
			if ( $span[ Trace::ATTR ] ) {
				$out['attributes'] = self::attributes( $span[ Trace::ATTR ] );
			}
			foreach ( $span[ Trace::EVENTS ] as $event ) {
				$out['events'][] = array(
					'timeUnixNano' => (string) $event[0],
					'name'         => $event[1],
					'attributes'   => self::attributes( $event[2] ),
				);
			}
			if ( null !== $span[ Trace::ERROR ] ) {
				$out['status'] = array(
					'code'    => 2,
					'message' => $span[ Trace::ERROR ],
				);
			}
			$spans[] = $out;
		}
		return self::request( $spans, $site );
	}

	/**
	 * Wrap spans.
	 *
	 * @param array[] $spans    As OTLP has them.
	 * @param array   $site  Attributes of the resource.
	 * @return string
	 */
	private static function request( array $spans, array $site ) {
		$body = json_encode( // phpcs:ignore WordPress.WP.AlternativeFunctions.json_encode_json_encode -- wp_json_encode() walks everything once more in PHP when a title is not UTF-8; the flags below mend it in C.
			array(
				'resourceSpans' => array(
					array(
						'resource'   => array( 'attributes' => self::attributes( $site ) ),
						'scopeSpans' => array(
							array(
								'scope' => array(
									'name'    => 'otelwp',
									'version' => OTELWP_VERSION,
								),
								'spans' => $spans,
							),
						),
					),
				),
			),
			JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PARTIAL_OUTPUT_ON_ERROR
		);
		return false === $body ? '' : $body;
	}

	/**
	 * Write attributes.
	 *
	 * @param array $attributes Key => string, int, float, bool or list of strings.
	 * @return array[]
	 */
	private static function attributes( array $attributes ) {
		$out = array();
		foreach ( $attributes as $key => $value ) {
			if ( is_string( $value ) ) {
				$value = array( 'stringValue' => strlen( $value ) > 2048 ? substr( $value, 0, 2048 ) : $value );
			} elseif ( is_int( $value ) ) {
				$value = array( 'intValue' => (string) $value );
			} elseif ( is_bool( $value ) ) {
				$value = array( 'boolValue' => $value );
			} elseif ( is_float( $value ) ) {
				$value = array( 'doubleValue' => is_finite( $value ) ? $value : ( is_nan( $value ) ? 'NaN' : ( $value > 0 ? 'Infinity' : '-Infinity' ) ) );
			} else {
				$list = array();
				foreach ( (array) $value as $item ) {
					$list[] = array( 'stringValue' => (string) $item );
				}
				$value = array( 'arrayValue' => array( 'values' => $list ) );
			}
			$out[] = array(
				'key'   => (string) $key,
				'value' => $value,
			);
		}
		return $out;
	}
}
