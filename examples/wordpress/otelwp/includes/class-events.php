<?php
/**
 * Events for the fleet.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Saves errors and payments as events, which WP-Cron sends to the collector.
 *
 * Each event is an option of its own, which is not loaded by pages: requests that end at the same time do not
 * overwrite each other's events.
 */
final class Events {

	const PREFIX = 'otelwp_event_';

	const MAX = 200; // Saved events; further ones are lost until events were sent.

	const SECONDS = 20; // Time for sending in one run of WP-Cron.

	const TYPES = array( 'payment_success', 'payment_failed', 'error', 'warning', 'info' );

	const SEVERITIES = array( 'debug', 'info', 'warning', 'error', 'critical' );

	/**
	 * Register the hooks of the events. Requests without an event load nothing.
	 */
	public static function watch() {
		add_action( 'otelwp_event', array( __CLASS__, 'add' ), 10, 4 );
		add_action( 'woocommerce_payment_complete', array( __CLASS__, 'paid' ), PHP_INT_MAX, 1 );
		add_action( 'woocommerce_order_status_failed', array( __CLASS__, 'failed' ), PHP_INT_MAX, 1 );
	}

	/**
	 * Save an event.
	 *
	 * @param string $type     One of TYPES.
	 * @param array  $data     Names and values; personal data and secrets in texts are removed.
	 * @param string $severity One of SEVERITIES; default: that of the type.
	 * @param string $code     File and line of an error.
	 * @return bool Whether it was saved.
	 */
	public static function add( $type, $data = array(), $severity = '', $code = '' ) {
		if ( ! in_array( $type, self::TYPES, true ) || ! Settings::get( 'enabled' ) || ! Fleet::is_configured() || Agent::is_paused() ) {
			return false;
		}
		if ( self::count() >= self::MAX ) {
			return false;
		}
		$event = array(
			'event_id'   => wp_generate_uuid4(),
			'event_type' => $type,
			'event_data' => array( 'occurred_at' => gmdate( 'c' ) ) + self::clean( is_array( $data ) ? $data : array() ),
		);
		if ( in_array( $severity, self::SEVERITIES, true ) ) {
			$event['severity'] = $severity;
		}
		if ( is_string( $code ) && '' !== $code ) {
			$event['stack_trace'] = self::text( $code );
		}
		return add_option( self::PREFIX . $event['event_id'], $event, '', false );
	}

	/**
	 * Save the error that has ended this request.
	 */
	public static function fatal() {
		$error = Request::fatal();
		if ( null !== $error ) {
			$code = ( isset( $error['code.file.path'] ) ? $error['code.file.path'] : '' ) . ':' . ( isset( $error['code.line.number'] ) ? $error['code.line.number'] : '' );
			self::add(
				'error',
				array(
					'error_code' => $error['exception.type'],
					'message'    => $error['exception.message'],
					'route'      => Route::name(),
				),
				'critical',
				$code
			);
		}
	}

	/**
	 * Save that an order was paid.
	 *
	 * @param int $id Of the order.
	 */
	public static function paid( $id ) {
		self::add( 'payment_success', self::order( $id ) );
	}

	/**
	 * Save that the payment of an order has failed.
	 *
	 * @param int $id Of the order.
	 */
	public static function failed( $id ) {
		self::add( 'payment_failed', self::order( $id ) );
	}

	/**
	 * Return the data of an order, without its customer.
	 *
	 * @param int $id Of the order.
	 * @return array
	 */
	private static function order( $id ) {
		$order = function_exists( 'wc_get_order' ) ? wc_get_order( $id ) : null;
		$data  = array( 'order_id' => (int) $id );
		return ! is_object( $order ) ? $data : $data + array(
			'amount'         => (float) $order->get_total(),
			'currency'       => (string) $order->get_currency(),
			'payment_method' => (string) $order->get_payment_method(),
		);
	}

	/**
	 * Send the saved events, the oldest first, until one cannot be delivered. Refused events are deleted.
	 *
	 * @return string|\WP_Error '' or why the rest was not sent.
	 */
	public static function send() {
		$deadline = microtime( true ) + self::SECONDS;
		foreach ( self::saved() as $name => $event ) {
			if ( microtime( true ) > $deadline ) {
				break;
			}
			$answer = Heartbeat::post( '/v1/plugins/event', $event + Fleet::identity() );
			if ( is_wp_error( $answer ) ) {
				return $answer;
			}
			$status = $answer['status'];
			if ( $status >= 500 || in_array( $status, array( 401, 403, 404, 408, 429 ), true ) ) {
				return Heartbeat::refusal( $answer );
			}
			// 409: it was stored before, but that answer did not arrive in time.
			if ( in_array( $status, array( 200, 409 ), true ) && 'error' === $event['event_type'] ) {
				self::count_error( $event );
			}
			delete_option( $name );
		}
		return '';
	}

	/**
	 * Return the number of errors in the last hour.
	 *
	 * @return int
	 */
	public static function errors_last_hour() {
		$errors = array_sum( self::recent( Fleet::state()['errors'] ) );
		foreach ( self::saved() as $event ) {
			$errors += 'error' === $event['event_type'] && self::minute( $event ) > intdiv( time() - HOUR_IN_SECONDS, 60 ) ? 1 : 0;
		}
		return $errors;
	}

	/**
	 * Count an error that was sent.
	 *
	 * @param array $event The event.
	 */
	private static function count_error( array $event ) {
		$state  = Fleet::state();
		$minute = self::minute( $event );

		$state['errors']            = self::recent( $state['errors'] );
		$state['errors'][ $minute ] = 1 + ( isset( $state['errors'][ $minute ] ) ? $state['errors'][ $minute ] : 0 );
		Fleet::save( $state );
	}

	/**
	 * Return the counts of the last hour.
	 *
	 * @param array<int, int> $errors By minute.
	 * @return array<int, int>
	 */
	private static function recent( array $errors ) {
		$now = intdiv( time(), 60 );
		return array_filter(
			$errors,
			static function ( $minute ) use ( $now ) {
				return $minute > $now - 60 && $minute <= $now;
			},
			ARRAY_FILTER_USE_KEY
		);
	}

	/**
	 * Return the minute of an event, in minutes of Unix time.
	 *
	 * @param array $event The event.
	 * @return int
	 */
	private static function minute( array $event ) {
		return intdiv( (int) strtotime( $event['event_data']['occurred_at'] ), 60 );
	}

	/**
	 * Return the number of saved events.
	 *
	 * @return int
	 */
	private static function count() {
		global $wpdb;
		// phpcs:ignore WordPress.DB.DirectDatabaseQuery -- there is no function that counts options.
		return (int) $wpdb->get_var( $wpdb->prepare( "SELECT COUNT(*) FROM {$wpdb->options} WHERE option_name LIKE %s", $wpdb->esc_like( self::PREFIX ) . '%' ) );
	}

	/**
	 * Return the saved events by the name of their option, the oldest first.
	 *
	 * @return array<string, array>
	 */
	public static function saved() {
		global $wpdb;
		// phpcs:ignore WordPress.DB.DirectDatabaseQuery -- there is no function that lists options.
		$rows  = $wpdb->get_results( $wpdb->prepare( "SELECT option_name, option_value FROM {$wpdb->options} WHERE option_name LIKE %s ORDER BY option_id LIMIT %d", $wpdb->esc_like( self::PREFIX ) . '%', self::MAX ) );
		$saved = array();
		foreach ( (array) $rows as $row ) {
			$event = maybe_unserialize( $row->option_value );
			if ( is_array( $event ) && isset( $event['event_id'], $event['event_type'], $event['event_data']['occurred_at'] ) ) {
				$saved[ $row->option_name ] = $event;
			} else {
				delete_option( $row->option_name );
			}
		}
		return $saved;
	}

	/**
	 * Return the scalar values of an event's data, without personal data and secrets.
	 *
	 * @param array $data Up to 50 names and values.
	 * @return array
	 */
	private static function clean( array $data ) {
		$clean = array();
		foreach ( array_slice( $data, 0, 50, true ) as $name => $value ) {
			if ( is_string( $value ) ) {
				$clean[ self::text( (string) $name ) ] = self::text( $value );
			} elseif ( is_int( $value ) || is_bool( $value ) || ( is_float( $value ) && is_finite( $value ) ) ) {
				$clean[ self::text( (string) $name ) ] = $value;
			}
		}
		return $clean;
	}

	/**
	 * Return a text of up to 500 bytes, without personal data and secrets.
	 *
	 * @param string $text Any.
	 * @return string
	 */
	private static function text( $text ) {
		return str_replace( "\0", '', Redact::text( $text ) );
	}
}
