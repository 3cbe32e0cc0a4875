#!/bin/sh
# Write the template for translators to languages/otelwp.pot, or to the file given as argument. Needs xgettext (gettext).
set -eu
cd "$(dirname "$0")/otelwp"
out=${1:-languages/otelwp.pot}
version=$(sed -n 's/^ \* Version: *//p' otelwp.php)
find . -name '*.php' | LC_ALL=C sort | xgettext --files-from=- --output="$out" --language=PHP --from-code=UTF-8 \
	--keyword=__ --keyword=_e --keyword=esc_html__ --keyword=esc_html_e --keyword=esc_attr__ --keyword=esc_attr_e \
	--keyword=_x:1,2c --keyword=_n:1,2 --add-comments=translators --sort-by-file --no-wrap \
	--package-name=OTelWP --package-version="$version" --copyright-holder='The otelwp-agent authors'
sed -i -e 's/charset=CHARSET/charset=UTF-8/' -e '/^#, fuzzy$/d' \
	-e '1,2c # Copyright (C) The otelwp-agent authors\n# This file is distributed under GPL-2.0-or-later.' -e '/^# FIRST AUTHOR/d' -e '/^# This file is distributed under the same/d' -e '/^"PO-Revision-Date/d' -e '/^"Last-Translator/d' -e '/^"Language-Team/d' -e '/^"Report-Msgid/d' "$out"

# WordPress also translates the description in the plugin header. (The name is in the file already.)
printf '\n#. Description of the plugin\n#: otelwp.php\nmsgid "%s"\nmsgstr ""\n' "$(sed -n 's/^ \* Description: *//p' otelwp.php)" >>"$out"
