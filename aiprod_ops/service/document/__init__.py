"""What the API says about itself: the OpenAPI document, its examples, and the pages made from both."""
