//! Keeps text from outside (a path, a key, an identity) on one line, in errors and logs alike.

/// Writes control characters as source code does, such as `\n` for the end of a line. All else stays as it is.
pub(crate) fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else_is() {
        assert_eq!(one_line("a\nb\u{1b}[0m\u{7f}"), r"a\nb\u{1b}[0m\u{7f}");
        assert_eq!(one_line(r#"N°{n} "\'"#), r#"N°{n} "\'"#);
    }
}
