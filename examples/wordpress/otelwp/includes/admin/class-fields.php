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
 * What the page says about each setting, and how it shows it.
 */
final class Fields {

	/**
	 * Return the sections of the page.
	 *
	 * @return array<string, string>
	 */
	public static function sections() {
		return array(
			'otelwp_record' => __( 'What is recorded', 'otelwp' ),
			'otelwp_detail' => __( 'In what detail', 'otelwp' ),
			'otelwp_send'   => __( 'Where it goes', 'otelwp' ),
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
				'section' => 'otelwp_record',
				'label'   => __( 'Record requests', 'otelwp' ),
				'help'    => __( 'Untick to record and send nothing.', 'otelwp' ),
			),
			'sampling_rate'   => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Sampling rate', 'otelwp' ),
				'help'    => __( 'The share of requests to record: 0.1 is one in ten, 1 is every request. The agent may ask for less.', 'otelwp' ),
				'step'    => 'any',
				'max'     => 1,
			),
			'keep_errors'     => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Always report failures', 'otelwp' ),
				'help'    => __( 'Of a request that fails and is not in the sample, report at least that it failed, and why.', 'otelwp' ),
			),
			'follow_parent'   => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Follow the caller', 'otelwp' ),
				'help'    => __( 'Record a request if a trusted caller says in the header traceparent that it records, and not if it does not.', 'otelwp' ),
			),
			'trusted_proxies' => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Trusted callers', 'otelwp' ),
				'help'    => __( 'Addresses or networks (10.0.0.0/8, fd00::/8), one a line, of proxies and services that send traceparent. Their traces are continued; those of all others are only linked to. A proxy must not pass on the header of strangers.', 'otelwp' ),
			),
			'service_name'    => array(
				'section' => 'otelwp_record',
				'label'   => __( 'Service name', 'otelwp' ),
				'help'    => __( 'What this site is called in traces. Empty: the host and path of the home page.', 'otelwp' ),
			),
			'database'        => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Database queries', 'otelwp' ),
				'help'    => __( 'Timed queries have spans; values in them are never sent. Where wp-config.php sets SAVEQUERIES to false they are only counted.', 'otelwp' ),
				'options' => array(
					'timed'   => __( 'time them', 'otelwp' ),
					'counted' => __( 'group and count them', 'otelwp' ),
					'off'     => __( 'only the total', 'otelwp' ),
				),
			),
			'slowest_queries' => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Slowest queries', 'otelwp' ),
				'help'    => __( 'How many of the slowest queries of a request have a span.', 'otelwp' ),
			),
			'slow_query_ms'   => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Slow query', 'otelwp' ),
				'help'    => __( 'Milliseconds from which on a query is called slow.', 'otelwp' ),
			),
			'n_plus_one'      => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Repeated query', 'otelwp' ),
				'help'    => __( 'How often a statement may run in one request, whatever its values, before it is called an N+1 query.', 'otelwp' ),
			),
			'propagate'       => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Hand the trace on', 'otelwp' ),
				'help'    => __( 'Which of the requests that this site makes carry the header traceparent.', 'otelwp' ),
				'options' => array(
					'all'  => __( 'all', 'otelwp' ),
					'site' => __( 'those to this site', 'otelwp' ),
					'none' => __( 'none', 'otelwp' ),
				),
			),
			'query_string'    => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Query strings', 'otelwp' ),
				'help'    => __( 'Report the query string of requests. Values that look like secrets or names are taken out; others may still say who asked.', 'otelwp' ),
			),
			'server_timing'   => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Server-Timing', 'otelwp' ),
				'help'    => __( 'Tell browsers the trace and how long the server worked. Every visitor can read it.', 'otelwp' ),
			),
			'max_spans'       => array(
				'section' => 'otelwp_detail',
				'label'   => __( 'Most spans', 'otelwp' ),
				'help'    => __( 'Spans of a request beyond this number are counted and not sent.', 'otelwp' ),
			),
			'endpoints'       => array(
				'section' => 'otelwp_send',
				'label'   => __( 'Endpoints', 'otelwp' ),
				'help'    => __( 'One a line, tried in this order: unixgram:///path, unix:///path, udp://127.0.0.1:4319, http://127.0.0.1:4318. A page never waits for any of them. Another host can be named in wp-config.php only.', 'otelwp' ),
			),
			'agent_url'       => array(
				'section' => 'otelwp_send',
				'label'   => __( 'Agent', 'otelwp' ),
				'help'    => __( 'Where WP-Cron asks every five minutes whether the agent is well and what it wishes. Empty: nowhere. Another host can be named in wp-config.php only, and the API key is sent to an address named there only.', 'otelwp' ),
			),
			'sampling_url'    => array(
				'section' => 'otelwp_send',
				'label'   => __( 'Remote sampling', 'otelwp' ),
				'help'    => __( 'Where to ask for a sampling rate besides, like http://127.0.0.1:5778/sampling. Empty: nowhere.', 'otelwp' ),
			),
			'finish_request'  => array(
				'section' => 'otelwp_send',
				'label'   => __( 'Answer first', 'otelwp' ),
				'help'    => __( 'With PHP-FPM or LiteSpeed, end the answer before the trace is written. It gains a fraction of a millisecond, and breaks plugins that print after WordPress has ended.', 'otelwp' ),
			),
		);
	}

	/**
	 * Show a field.
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
			// Shown to administrators of a site, who need not know what the host's administrator wrote.
			$value = is_array( $value ) ? array_map( array( Redact::class, 'address' ), $value ) : ( '' === $value ? '' : Redact::address( (string) $value ) );
		}
		if ( is_bool( $standard ) ) {
			// An unticked box sends nothing; what stands before it is sent then.
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
