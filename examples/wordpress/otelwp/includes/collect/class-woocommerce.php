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
 * The checkout and its payment, where WooCommerce runs. No order, no amount, no customer: only how long, and how it went.
 */
final class Woocommerce {

	/**
	 * Where spans go.
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
	 * Prepare.
	 *
	 * @param Trace $trace Where spans go.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
	}

	/**
	 * Watch.
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
	 * The checkout begins: it checks what was entered, and makes an order.
	 */
	public function checkout() {
		$this->checkout = $this->trace->open( 'woocommerce checkout' );
	}

	/**
	 * There is an order, and its payment begins.
	 *
	 * @param int            $id    Of the order.
	 * @param array          $data  That was entered.
	 * @param \WC_Order|null $order The order.
	 */
	public function processed( $id, $data = array(), $order = null ) {
		$this->pay( $order );
	}

	/**
	 * There is an order, made through the block checkout, and its payment begins.
	 *
	 * @param \WC_Order $order The order.
	 */
	public function store_api( $order ) {
		$this->pay( $order );
	}

	/**
	 * The payment went well; the answer sends the customer on.
	 *
	 * @param array $result Where to.
	 * @return array
	 */
	public function paid( $result ) {
		$this->trace->close( $this->payment );
		$this->trace->close( $this->checkout );
		return $result;
	}

	/**
	 * The money is there.
	 */
	public function complete() {
		$this->trace->event( Trace::NONE === $this->payment ? $this->trace->current() : $this->payment, 'woocommerce.payment_complete' );
	}

	/**
	 * An order went from one status to another.
	 *
	 * @param int    $id   Of the order.
	 * @param string $from The status that it had.
	 * @param string $to   The status that it has.
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
	 * Begin the span of a payment.
	 *
	 * @param \WC_Order|null $order The order.
	 */
	private function pay( $order ) {
		$method        = is_object( $order ) && is_callable( array( $order, 'get_payment_method' ) ) ? (string) $order->get_payment_method() : '';
		$this->payment = $this->trace->open( 'woocommerce payment', Trace::INTERNAL, array( 'woocommerce.payment_method' => $method ) );
	}
}
