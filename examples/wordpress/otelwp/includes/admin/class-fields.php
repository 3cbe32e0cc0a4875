<?php
/**
 * The fields of the settings page.
 *
 * @package Otelwp
 */

namespace Otelwp\Admin;

use Otelwp\Redact;
use Otelwp\Settings;

defined( 'ABSPATH' ) || exit;

/**
 * Texts and inputs of the settings.
 */
final class Fields {

	const BASIC = 'otelwp_basic'; // The section that is always shown; the others are folded.

	/**
	 * Return the sections of the page.
	 *
	 * @return array<string, string>
	 */
	public static function sections() {
		return array(
			self::BASIC     => __( 'Settings', 'otelwp' ),
			'otelwp_record' => __( 'Recording', 'otelwp' ),
			'otelwp_detail' => __( 'Details', 'otelwp' ),
			'otelwp_send'   => __( 'Destination', 'otelwp' ),
			'otelwp_fleet'  => __( 'Fleet', 'otelwp' ),
		);
	}

	/**
	 * Return the fields, by setting.
	 *
	 * @return array<string, array>
	 */
	public static function all() {
		return array(
			'enabled'         => array(
				'section' => self::BASIC,
				'label'   => __( 'Record requests', 'otelwp' ),
				'help'    => __( 'Untick to record and send nothing.', 'otelwp' ),
			),
			'service_name'    => array(
				'section' => self::BASIC,
				'label'   => __( 'Service name', 'otelwp' ),
				'help'    => __( 'Name of this site in traces. Default: the host and path of the home page.', 'otelwp' ),
			),
			'sampling_rate'   => array(
				'section' => self::BASIC,
				'label'   => __( 'Sampling rate', 'otelwp' ),
				'help'    => __( 'The share of requests to record: 0.1 is one in ten, 1 is every request. The agent may request less.', 'otelwp' ),
				'step'    => 'any',
				'max'     => 1,
			),
			'endpoints'       => array(
				'section' => self::BASIC,
				'label'   => __( 'Endpoints', 'otelwp' ),
				'help'    => __( 'One in each line, tried in this order: unixgram:///path, unix:///path, udp://127.0.0.1:4319, http://127.0.0.1:4318. Pages never wait for them. Another host can be configured only in wp-config.php.', 'otelwp' ),
			),
			'agent_url'       => array(
				'section' => self::BASIC,
				'label'   => __( 'Agent', 'otelwp' ),
				'help'    => __( 'Address of the agent. WP-Cron sends a heartbeat every five minutes, and the answer may limit sampling. Empty: no heartbeat. Another host can be configured only in wp-config.php, and the API key is sent only to an address from there.', 'otelwp' ),
			),
			'ui_url'          => array(
				'section' => self::BASIC,
				'label'   => __( 'Page of the agent', 'otelwp' ),
				'help'    => __( 'Address at which your browser reaches the page of the agent, like http://127.0.0.1:13170. With it, this screen has links to the page and to the test trace. The plugin does not connect to it.', 'otelwp' ),
			),
			'keep_errors'     => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Always report failures', 'otelwp' ),
				'help'    => __( 'If a request fails that is not sampled, send at least one span with the error.', 'otelwp' ),
			),
			'follow_parent'   => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Follow the caller', 'otelwp' ),
				'help'    => __( 'Use the sampling decision of trusted callers in the header traceparent: record a request if the caller records it, and only then.', 'otelwp' ),
			),
			'trusted_proxies' => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Trusted callers', 'otelwp' ),
				'help'    => __( 'Addresses or networks (10.0.0.0/8, fd00::/8), one in each line, of proxies and services that send traceparent. Their traces are continued; traces of other callers are only linked. A proxy must not forward this header from its own clients.', 'otelwp' ),
			),
			'database'        => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Database queries', 'otelwp' ),
				'help'    => __( 'Timed queries have spans, without the values in them. They are only counted if another plugin has its own database object.', 'otelwp' ),
				'options' => array(
					'timed'   => __( 'time queries', 'otelwp' ),
					'counted' => __( 'group and count queries', 'otelwp' ),
					'off'     => __( 'count only the total', 'otelwp' ),
				),
			),
			'slowest_queries' => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Slowest queries', 'otelwp' ),
				'help'    => __( 'Maximum number of slowest queries of a request that have a span.', 'otelwp' ),
			),
			'slow_query_ms'   => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Slow query', 'otelwp' ),
				'help'    => __( 'Duration in milliseconds from which a query is reported as slow.', 'otelwp' ),
			),
			'n_plus_one'      => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Repeated query', 'otelwp' ),
				'help'    => __( 'Number of executions of the same statement in one request, with any values, from which it is reported as an N+1 query.', 'otelwp' ),
			),
			'propagate'       => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Propagate the trace', 'otelwp' ),
				'help'    => __( 'Outgoing requests of this site that carry the header traceparent.', 'otelwp' ),
				'options' => array(
					'all'  => __( 'all', 'otelwp' ),
					'site' => __( 'only those to this site', 'otelwp' ),
					'none' => __( 'none', 'otelwp' ),
				),
			),
			'query_string'    => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Query strings', 'otelwp' ),
				'help'    => __( 'Report the query string of requests. Values that look like secrets or personal data are removed; others may still identify a visitor.', 'otelwp' ),
			),
			'server_timing'   => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Server-Timing', 'otelwp' ),
				'help'    => __( 'Send the trace id and the duration of each phase to browsers. Every visitor can read them.', 'otelwp' ),
			),
			'profile_rate'    => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Profiling rate', 'otelwp' ),
				'help'    => __( 'The share of recorded requests in which functions of plugins and the theme are measured: 0.1 is one in ten. Measuring takes CPU time in these requests.', 'otelwp' ),
				'step'    => 'any',
				'max'     => 1,
			),
			'max_spans'       => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Maximum of spans', 'otelwp' ),
				'help'    => __( 'Spans of a request beyond this number are counted, but not sent.', 'otelwp' ),
			),
			'sampling_url'    => array(
				'section' => 'otelwp_send',
				'label'   => __( 'Remote sampling', 'otelwp' ),
				'help'    => __( 'Another address that returns a sampling rate, like http://127.0.0.1:5778/sampling. Empty: none.', 'otelwp' ),
			),
			'finish_request'  => array(
				'section' => 'otelwp_send',
				'label'   => __( 'Finish the response first', 'otelwp' ),
				'help'    => __( 'With PHP-FPM or LiteSpeed, finish the response before the trace is sent. It saves a fraction of a millisecond, but breaks plugins that print after WordPress has finished.', 'otelwp' ),
			),
			'merchant_id'     => array(
				'section' => 'otelwp_fleet',
				'label'   => __( 'Merchant', 'otelwp' ),
				'help'    => __( 'Id of the merchant whose fleet this site belongs to. With it, WP-Cron also sends errors and payments as events. Empty: none.', 'otelwp' ),
			),
			'heartbeat_url'   => array(
				'section' => 'otelwp_fleet',
				'label'   => __( 'Collector', 'otelwp' ),
				'help'    => __( 'Address that receives heartbeats and events, like http://127.0.0.1:13160. Empty: the agent. A collector on another host can be configured only in wp-config.php; use https there.', 'otelwp' ),
			),
			'toggles_key'     => array(
				'section' => 'otelwp_fleet',
				'label'   => __( 'Key for toggles', 'otelwp' ),
				'help'    => __( 'Public key of the operator. Only with a valid signature may the operator stop this plugin, have it record less, write a debug log or ask for an update. Empty: the operator may not.', 'otelwp' ),
			),
		);
	}

	/**
	 * Print a field.
	 *
	 * @param array $field From all(), with its key.
	 */
	public static function show( $field ) {
		$key      = $field['key'];
		$value    = Settings::get( $key );
		$standard = Settings::defaults()[ $key ];
		$name     = Settings::OPTION . '[' . $key . ']';
		$id       = 'otelwp-' . $key;
		$fixed    = ! Settings::may_change( $key );
		if ( $fixed && in_array( $key, Settings::URLS, true ) ) {
			// Administrators of a site need not see secrets in the addresses that the host's administrator has
			// configured.
			$value = is_array( $value ) ? array_map( array( Redact::class, 'address' ), $value ) : ( '' === $value ? '' : Redact::address( (string) $value ) );
		}
		if ( is_bool( $standard ) ) {
			// Browsers send nothing for an unticked box; the hidden field before it is sent then.
			printf( '<input type="hidden" name="%s" value="0"%s>', esc_attr( $name ), disabled( $fixed, true, false ) );
			printf( '<input type="checkbox" id="%s" name="%s" value="1"%s%s>', esc_attr( $id ), esc_attr( $name ), checked( (bool) $value, true, false ), disabled( $fixed, true, false ) );
		} elseif ( isset( $field['options'] ) ) {
			printf( '<select id="%s" name="%s"%s>', esc_attr( $id ), esc_attr( $name ), disabled( $fixed, true, false ) );
			foreach ( $field['options'] as $option => $label ) {
				printf( '<option value="%s"%s>%s</option>', esc_attr( $option ), selected( $value, $option, false ), esc_html( $label ) );
			}
			echo '</select>';
		} elseif ( is_array( $standard ) ) {
			printf( '<textarea id="%s" name="%s" rows="4" class="large-text code"%s>%s</textarea>', esc_attr( $id ), esc_attr( $name ), disabled( $fixed, true, false ), esc_textarea( implode( "\n", (array) $value ) ) );
		} elseif ( is_string( $standard ) ) {
			printf( '<input type="text" id="%s" name="%s" value="%s" class="regular-text"%s>', esc_attr( $id ), esc_attr( $name ), esc_attr( $value ), disabled( $fixed, true, false ) );
		} else {
			printf( '<input type="number" id="%s" name="%s" value="%s" min="0" step="%s"%s class="small-text"%s>', esc_attr( $id ), esc_attr( $name ), esc_attr( $value ), esc_attr( isset( $field['step'] ) ? $field['step'] : '1' ), isset( $field['max'] ) ? ' max="' . esc_attr( $field['max'] ) . '"' : '', disabled( $fixed, true, false ) );
		}
		echo '<p class="description">' . esc_html( $field['help'] );
		if ( $fixed && ! Settings::is_constant( $key ) ) {
			echo ' <strong>' . esc_html__( 'Only an administrator of the network can change it.', 'otelwp' ) . '</strong>';
		} elseif ( $fixed ) {
			/* translators: %s: name of a constant */
			echo ' <strong>' . esc_html( sprintf( __( 'Set by %s in wp-config.php.', 'otelwp' ), 'OTELWP_' . strtoupper( $key ) ) ) . '</strong>';
		}
		echo '</p>';
	}
}
