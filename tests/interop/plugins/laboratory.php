<?php
/**
 * A must-use plugin for tests: writes down what plugins post, and has pages that fail or work in known ways.
 *
 * @package Interop
 */

// What was posted, one line of JSON each: the truth that what arrives is compared with.
add_filter(
	'http_request_args',
	function ( $args, $url ) {
		if ( 'POST' === $args['method'] && is_string( $args['body'] ) ) {
			$line = json_encode( array( 'url' => $url, 'body' => $args['body'] ) ) . "\n";
			file_put_contents( dirname( ABSPATH ) . '/posted.jsonl', $line, FILE_APPEND | LOCK_EX );
		}
		return $args;
	},
	10,
	2
);

add_action(
	'template_redirect',
	function () {
		global $wpdb;
		switch ( $_GET['laboratory'] ?? '' ) {
			case 'fatal':
				interop_function_that_does_not_exist();
				break;
			case 'exception':
				throw new RuntimeException( 'the laboratory burns' );
			case 'die':
				wp_die( 'no entry', 'no', array( 'response' => 403 ) );
				break;
			case 'queries':
				for ( $id = 1; $id <= 12; $id++ ) {
					$wpdb->get_var( $wpdb->prepare( "SELECT post_title FROM {$wpdb->posts} WHERE ID = %d", $id ) );
				}
				break;
			case 'outgoing':
				wp_remote_get( home_url( '/wp-json/wp/v2/posts/1' ) );
				break;
		}
	}
);
