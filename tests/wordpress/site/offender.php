<?php
/**
 * Plugin Name: Offender
 * Description: Functions of every kind in hooks, some of them slow. For tests of OTelWP.
 */

defined( 'ABSPATH' ) || exit;

function offender_wait( $ms ) {
	$end = hrtime( true ) + $ms * 1000000;
	while ( hrtime( true ) < $end ) {
		continue;
	}
}

class Offender {
	public static $log = array();

	public function content( $text ) {
		offender_wait( 40 );
		return apply_filters( 'the_excerpt', $text . '<!-- content -->' );
	}

	public static function still( $text ) {
		return $text . '<!-- static -->';
	}

	public function __invoke( $text ) {
		return $text . '<!-- invoked -->';
	}

	public function recursive( $text ) {
		static $depth = 0;
		if ( $depth < 3 ) {
			++$depth;
			$text = apply_filters( 'the_content', $text );
			--$depth;
		}
		return $text;
	}
}

$offender = new Offender();
$case     = $_GET['offend'] ?? '';
if ( 'content' === $case ) {
	add_filter( 'the_content', array( $offender, 'content' ) );
	add_filter( 'the_content', 'Offender::still' );
	add_filter( 'the_content', $offender );
}
if ( 'removed' === $case ) {
	add_filter( 'the_content', array( $offender, 'content' ), 10 );
	add_filter(
		'the_content',
		static function ( $text ) use ( $offender ) {
			$before = has_filter( 'the_content', array( $offender, 'content' ) );
			remove_filter( 'the_content', array( $offender, 'content' ), 10 );
			add_filter( 'the_content', static fn( $late ) => $late . '<!-- late -->', 30 );
			return $text . '<!-- ' . wp_json_encode( array( $before, has_filter( 'the_content', array( $offender, 'content' ) ) ) ) . ' -->';
		},
		5
	);
}
if ( 'recursive' === $case ) {
	add_filter( 'the_content', array( $offender, 'recursive' ) );
}
if ( 'reference' === $case ) {
	add_action(
		'pre_get_posts',
		static function ( &$query ) {
			offender_wait( 20 );
			Offender::$log[] = get_class( $query );
		}
	);
	add_action( 'wp_footer', static function () { echo '<!-- ', implode( ',', array_slice( Offender::$log, 0, 1 ) ), ' -->'; } );
}
if ( 'thrown' === $case ) {
	add_filter( 'the_excerpt', static function () { throw new DomainException( 'inner' ); } );
	add_filter(
		'the_content',
		static function ( $text ) {
			try {
				return apply_filters( 'the_excerpt', $text );
			} catch ( DomainException $error ) {
				offender_wait( 20 );
				return $text . '<!-- caught -->';
			}
		}
	);
}
if ( 'exit' === $case ) {
	add_action( 'template_redirect', static function () { offender_wait( 20 ); exit( 'bye' ); } );
}
if ( 'shortcode' === $case ) {
	add_shortcode( 'offender', static function () { offender_wait( 20 ); return 'short'; } );
	add_filter( 'the_content', static fn( $text ) => $text . do_shortcode( '[offender]' ) );
}
if ( 'unhooked' === $case ) {
	add_filter( 'the_content', static function ( $text ) { remove_all_filters( 'the_content' ); return $text . '<!-- alone -->'; }, PHP_INT_MIN );
}
if ( 'replaced' === $case ) {
	add_filter( 'the_content', static function ( $text ) { unset( $GLOBALS['wp_filter']['the_content'] ); return $text; }, PHP_INT_MIN );
}
if ( 'thousands' === $case ) {
	for ( $number = 0; $number < 5000; ++$number ) {
		add_filter( 'the_content', static fn( $text ) => $text . ( 0 === $number % 1000 ? "<!-- $number -->" : '' ) );
	}
}
if ( 'fatal' === $case ) {
	add_filter( 'the_content', static fn( $text ) => offender_does_not_exist( $text ) );
}
if ( 'memory' === $case ) {
	add_filter( 'the_content', static fn( $text ) => $text . str_repeat( 'x', PHP_INT_MAX >> 8 ) );
}
if ( 'time' === $case ) {
	add_filter( 'the_content', static function ( $text ) { set_time_limit( 1 ); while ( true ) { offender_wait( 1 ); } } );
}
if ( 'early' === $case ) {
	echo 'early';
	flush();
}
