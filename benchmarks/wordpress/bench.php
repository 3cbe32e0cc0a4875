<?php
/**
 * Plugin Name: Bench
 * Description: Loads the plugin that a request names in its header X-Bench, and writes its cost. A must-use plugin.
 *
 * The file bench.json in the same folder has the paths of the plugins and the results, and the plugins' endpoints.
 *
 * @package Otelwp
 */

defined( 'ABSPATH' ) || exit;

( static function () {
	$variant = isset( $_SERVER['HTTP_X_BENCH'] ) ? $_SERVER['HTTP_X_BENCH'] : '';
	if ( '' === $variant ) {
		return;
	}
	$bench = json_decode( file_get_contents( __DIR__ . '/bench.json' ), true );
	$cost  = array( 'variant' => $variant );
	$usage = getrusage();
	$cpu   = static function ( $usage ) {
		return 1000.0 * ( $usage['ru_utime.tv_sec'] + $usage['ru_stime.tv_sec'] ) + ( $usage['ru_utime.tv_usec'] + $usage['ru_stime.tv_usec'] ) / 1000.0;
	};
	// Registered late, because shutdown functions run in order: this one must run after that of the measured plugin.
	$done = static function () use ( &$cost, $usage, $cpu, $bench ) {
		$cost['wall_ms']   = 1000.0 * ( microtime( true ) - $_SERVER['REQUEST_TIME_FLOAT'] );
		$cost['cpu_ms']    = $cpu( getrusage() ) - $cpu( $usage );
		$cost['memory_kb'] = memory_get_peak_usage() / 1024.0;
		file_put_contents( $bench['results'], json_encode( $cost ) . "\n", FILE_APPEND | LOCK_EX );
	};

	if ( 'founding' === $variant ) {
		foreach ( array( 'endpoint' => $bench['founding'], 'sampling_rate' => 1.0 ) as $option => $value ) {
			add_filter(
				"pre_option_wpotel_$option",
				static function () use ( $value ) {
					return $value;
				}
			);
		}
		add_action(
			'plugins_loaded',
			static function () use ( $bench ) {
				require $bench['founding_plugin'];
			}
		);
		add_action(
			'shutdown',
			static function () use ( &$cost ) {
				$cost['began'] = hrtime( true );
			},
			9998
		);
		add_action(
			'shutdown',
			static function () use ( &$cost ) {
				$cost['export_ms'] = ( hrtime( true ) - $cost['began'] ) / 1e6;
				unset( $cost['began'] );
			},
			10000
		);
	} elseif ( in_array( $variant, array( 'ours', 'every', 'installed' ), true ) ) {
		define( 'OTELWP_MU', true );
		define( 'OTELWP_ENDPOINTS', $bench['ours'] );
		if ( 'installed' !== $variant ) { // The default settings record one page in ten.
			define( 'OTELWP_SAMPLING_RATE', 1.0 );
		}
		if ( 'ours' === $variant ) {
			define( 'OTELWP_SLOWEST_QUERIES', $bench['queries'] );
		}
		if ( $bench['reset'] ) {
			apcu_clear_cache(); // Each page tries to send: the cost for the one page a minute that does.
		}
		add_action(
			'otelwp_sent',
			static function ( $endpoint, $size, $sending, $preparing, $trace ) use ( &$cost ) {
				$cost['export_ms']  = $sending / 1e6;
				$cost['prepare_ms'] = $preparing / 1e6;
				$cost['bytes']      = $size;
				$cost['spans']      = count( $trace->spans );
				$cost['taken']      = $endpoint;
			},
			10,
			5
		);
		require $bench['our_plugin'];
	}
	register_shutdown_function( $done );
} )();
