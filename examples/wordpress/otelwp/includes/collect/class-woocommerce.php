<?php
/**
 * WooCommerce.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Records WooCommerce's checkout and payment: only duration and result, no order, amount or customer.
 */
final class Woocommerce {

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * The span of the checkout.
	 *
	 * @var int
	 */
	private $checkout = Trace::NONE;

	/**
	 * The span of the payment.
	 *
	 * @var int
	 */
	private $payment = Trace::NONE;

	/**
	 * Store the trace.
	 *
	 * @param Trace $trace The trace for the spans.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
	}

	/**
	 * Register the hooks.
	 */
	public function watch() {
		add_action( 'woocommerce_before_checkout_process', array( $this, 'checkout' ), PHP_INT_MIN, 0 );
		add_action( 'woocommerce_checkout_order_processed', array( $this, 'processed' ), PHP_INT_MAX, 3 );
		add_action( 'woocommerce_store_api_checkout_order_processed', array( $this, 'store_api' ), PHP_INT_MAX, 1 );
		add_filter( 'woocommerce_payment_successful_result', array( $this, 'paid' ), PHP_INT_MIN );
		add_action( 'woocommerce_payment_complete', array( $this, 'complete' ), PHP_INT_MAX, 0 );
		add_action( 'woocommerce_order_status_changed', array( $this, 'status' ), PHP_INT_MAX, 3 );
	}

	/**
	 * Start the span of the checkout, which checks the input and creates an order.
	 */
	public function checkout() {
		$this->checkout = $this->trace->open( 'woocommerce checkout' );
	}

	/**
	 * Start the span of the payment of an order.
	 *
	 * @param int            $id    Of the order.
	 * @param array          $data  The input.
	 * @param \WC_Order|null $order The order.
	 */
	public function processed( $id, $data = array(), $order = null ) {
		$this->pay( $order );
	}

	/**
	 * Start the span of the payment of an order from the block checkout.
	 *
	 * @param \WC_Order $order The order.
	 */
	public function store_api( $order ) {
		$this->pay( $order );
	}

	/**
	 * End the spans after a successful payment.
	 *
	 * @param array $result The redirection.
	 * @return array
	 */
	public function paid( $result ) {
		$this->trace->close( $this->payment );
		$this->trace->close( $this->checkout );
		return $result;
	}

	/**
	 * Record that the payment is complete.
	 */
	public function complete() {
		$this->trace->event( Trace::NONE === $this->payment ? $this->trace->current() : $this->payment, 'woocommerce.payment_complete' );
	}

	/**
	 * Record that the status of an order changed.
	 *
	 * @param int    $id   Of the order.
	 * @param string $from The old status.
	 * @param string $to   The new status.
	 */
	public function status( $id, $from, $to ) {
		$this->trace->event(
			$this->trace->current(),
			'woocommerce.order_status_changed',
			array(
				'woocommerce.order.status.from' => (string) $from,
				'woocommerce.order.status.to'   => (string) $to,
			)
		);
		if ( 'failed' === $to ) {
			$this->trace->fail( Trace::NONE === $this->payment ? $this->trace->current() : $this->payment, 'payment failed' );
		}
	}

	/**
	 * Start the span of a payment.
	 *
	 * @param \WC_Order|null $order The order.
	 */
	private function pay( $order ) {
		$method        = is_object( $order ) && is_callable( array( $order, 'get_payment_method' ) ) ? (string) $order->get_payment_method() : '';
		$this->payment = $this->trace->open( 'woocommerce payment', Trace::INTERNAL, array( 'woocommerce.payment_method' => $method ) );
	}
}
