"""What the HTML report is made of: drawings, explanations as HTML, and the templates."""
