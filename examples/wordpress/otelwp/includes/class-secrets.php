<?php
/**
 * Secrets in text.
 *
 * @package Otelwp
 */

namespace Otelwp;

defined( 'ABSPATH' ) || exit;

/**
 * Replaces passwords, keys and tokens in any text.
 *
 * The agent's processor `wordpress` recognizes the same patterns, and tests/data/wordpress/secrets.json tests both.
 * Every pattern takes linear time: its quantifiers are bounded, possessive, or end at a character that cannot be
 * repeated before them.
 */
final class Secrets {

	const MARK = 'REDACTED';

	// Before a value: the rest of a quoted key, a separator, spaces.
	const SEPARATOR = '["\'\]\\\\]{0,4}[ \t]{0,3}(?:={1,3}>?|:|%3D|;s:\d{1,6}:|[ \t](?:like|in|is|by)[ \t]{0,2}\(?[ \t]{0,2}(?=["\']))[ \t]{0,3}(?:string\(\d{1,6}\) )?';

	// A quoted value up to its closing quote. The opening quote is group 2, 3 or 4.
	const QUOTED = '(")(?:[^"\\\\]++|\\\\.)*+|(\')(?:[^\'\\\\]++|\\\\.)*+|(\\\\{1,4}["\'])[^"\'\\\\]*+';

	// A value without quotes; a placeholder of SQL is not one.
	const BARE = '(?!\?(?:[\s,;)]|$))[^\s&;,"\'<>()\[\]{}|\\\\]++';

	const STRONG = 'passw(?:or)?d|passphrase|passcode|(?<![a-z])(?:pwd|(?:db|user|smtp|ftp|my|mysql|root|admin)_?pass|identified)|_pass|secret|(?:api|access|private|secret|encryption|signing|account|shared|auth)[ _-]?key|[_-]salt|(?:php)?sess(?:ion)?_?id|wpnonce|authorization';

	const WEAK = '(?<![a-z])(?:pass|auth|session|sig|nonce|signature)|token|credentials?';

	/**
	 * Lines of HTTP headers, patterns of tokens, `key=value`, and long random text next to the name of a secret.
	 */
	const PATTERNS = array(
		'/-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[^-]++|-(?!----END ))*+(?:-----END [A-Z ]{0,30}-----)?/',
		'~((?:authorization|(?<![a-z])cookie)["\'\\\\]{0,3}[ \t]{0,3}(?::|=>)[ \t]{0,3})(?:' . self::QUOTED . '|(?:Digest|OAuth|Signature|AWS4-HMAC-SHA256)\b[^\r\n]*+|[^\r\n"\'\\\\]++)~is',
		'~(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))(?:[prs]k_(?:live|test)_[A-Za-z0-9]{8,}+|whsec_[A-Za-z0-9+/=]{16,}+|gh[opsur]_[A-Za-z0-9]{20,}+|github_pat_\w{20,}+|glpat-[\w-]{16,}+|xox[abeoprs]-[A-Za-z0-9-]{10,}+|xapp-\d-[A-Za-z0-9-]{10,}+|A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{35}|ya29\.[\w-]{16,}+|SG\.[\w-]{16,}+\.[\w-]{16,}+|(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+){0,3})~',
		'~(?<![a-z])(bearer|basic)([ \t]{1,3}|%20|\+)(?=[a-z_.\~+/-]{0,64}+[\d=]|[\w.\~+/-]{20})[\w.\~+/-]{8,}+={0,2}~i',
		'~((?:' . self::STRONG . ')\d{0,2}(?![a-z])' . self::SEPARATOR . ')(?:' . self::QUOTED . '|' . self::BARE . ')~is',
		'~((?:' . self::WEAK . ')\d{0,2}(?![a-z])' . self::SEPARATOR . ')(?:' . self::QUOTED . '|(?:(?<=[=>d])|(?<=[=>d][ \t])|(?=[\w.\~+/-]{16})|(?=[\w.\~+/-]{8})(?=[a-z_.\~+/-]{0,64}+\d))' . self::BARE . ')~is',
		'~((?:(?<![a-z])key|secret|token|password|nonce|signature)s?[^\w\r\n]{1,4}(?:[a-z]{1,8}[^\w\r\n]{1,3}){0,2})(?=[a-z+/]{0,64}+\d)[a-z0-9+/]{32,}+={0,2}~i',
		'~(?<=://)[^/@\s?#]++@~',
	);

	const REPLACEMENTS = array(
		self::MARK,
		'$1$2$3$4' . self::MARK,
		self::MARK,
		'$1$2' . self::MARK,
		'$1$2$3$4' . self::MARK,
		'$1$2$3$4' . self::MARK,
		'$1' . self::MARK,
		self::MARK . '@',
	);

	/**
	 * Replace the secrets in a text.
	 *
	 * @param string $text Any.
	 * @return string Only MARK if PCRE fails, because an unchecked text must not be sent.
	 */
	public static function redact( $text ) {
		$clean = preg_replace( self::PATTERNS, self::REPLACEMENTS, $text );
		return null === $clean ? self::MARK : $clean;
	}

	/**
	 * Return whether a text contains a secret.
	 *
	 * @param string $text Any.
	 * @return bool
	 */
	public static function found( $text ) {
		return self::redact( $text ) !== $text;
	}
}
