<?php
/**
 * Cron.
 *
 * @package Otelwp
 */

namespace Otelwp\Collect;

use Otelwp\Trace;

defined( 'ABSPATH' ) || exit;

/**
 * Records spans of the hooks that a cron run calls.
 */
final class Cron {

	/**
	 * The trace for the spans.
	 *
	 * @var Trace
	 */
	private $trace;

	/**
	 * Prepare.
	 *
	 * @param Trace $trace Where spans go.
	 */
	public function __construct( Trace $trace ) {
		$this->trace = $trace;
	}

	/**
	 * Add a span around each hook that this cron run is about to call.
	 */
	public function surround() {
		$hooks = array();
		foreach ( wp_get_ready_cron_jobs() as $jobs ) {
			$hooks += $jobs;
		}
		foreach ( array_slice( array_keys( $hooks ), 0, 100 ) as $hook ) {
			$span = Trace::NONE;
			add_action(
				$hook,
				function () use ( $hook, &$span ) {
					$span = $this->trace->open( 'cron ' . $hook, Trace::INTERNAL, array( 'wordpress.cron.hook' => (string) $hook ) + Owner::of_hook( $hook ) );
				},
				PHP_INT_MIN,
				0
			);
			add_action(
				$hook,
				function () use ( &$span ) {
					$this->trace->close( $span );
				},
				PHP_INT_MAX,
				0
			);
			unset( $span ); // Each hook has its own variable.
		}
	}
}
