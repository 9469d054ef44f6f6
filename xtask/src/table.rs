//! Printing aligned tables.

/// Prints rows under a header: the first column to the left, numbers to the right.
pub fn print(header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut text = String::from("  ");
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            if column == 0 {
                text += &format!("{cell}{padding}");
            } else {
                text += &format!("   {padding}{cell}");
            }
        }
        println!("{}", text.trim_end());
    };
    line(
        &header
            .iter()
            .map(|&cell| cell.to_owned())
            .collect::<Vec<_>>(),
    );
    let total = widths.iter().sum::<usize>() + 3 * (widths.len() - 1);
    println!("  {}", "-".repeat(total));
    for row in rows {
        line(row);
    }
}

/// Bytes as megabytes.
pub fn megabytes(bytes: i64) -> String {
    format!("{:.1} MB", bytes as f64 / 1048576.0)
}

/// A whole number with thousands set apart.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(1234567.4), "1 234 567");
        assert_eq!(thousands(12.0), "12");
        assert_eq!(thousands(123.0), "123");
    }
}
